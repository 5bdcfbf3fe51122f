"""The colour fix against the official one."""

import pytest

from addsr.image.color import fix_color, low_frequencies


@pytest.mark.parametrize("kind", ["wavelet", "adain"])
def test_color_fix_agrees(load, agrees, kind):
    inputs, outputs = load("colorfix", "inputs"), load("colorfix", "outputs")
    source, target = (inputs[f"{name}_uint8"].permute(2, 0, 1).float() / 255 for name in ("source", "target"))
    fix_color(target, lambda rows: source[:, rows].clone(), kind)
    agrees(target[None], outputs[f"{kind}_float"])
    truncated = (target.clamp(0, 1) * 255).byte()  # as the official code makes its 8-bit picture
    agrees(truncated.permute(1, 2, 0), outputs[f"{kind}_uint8"])


def test_low_frequencies_agree(load, agrees):
    target = load("colorfix", "inputs")["target_uint8"].permute(2, 0, 1).float() / 255
    agrees(low_frequencies(target)[None], load("colorfix", "outputs")["wavelet_low_target"])
