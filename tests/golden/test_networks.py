"""U-Net and ControlNet against the official code: outputs with its weights, and the key layout at SD-2 size."""

import json

import pytest
import torch

from addsr.models.controlnet import AddSRControlNet
from addsr.models.unet import AddSRUNet


def tiny(cls, golden, load, case):
    """The network of a golden with its weights; config keys that we do not have are SD defaults."""
    config = json.loads((golden(case) / "config.json").read_text())[f"{case}_config"]
    known = cls._get_init_keys(cls)
    network = cls(**{key: value for key, value in config.items() if key in known})
    network.load_state_dict(load(case, "weights"))
    return network.eval()


@torch.no_grad()
def test_unet_agrees(golden, load, agrees):
    unet = tiny(AddSRUNet, golden, load, "unet")
    inputs, outputs = load("unet", "inputs"), load("unet", "outputs")
    context = {name: inputs[name] for name in ("encoder_hidden_states", "image_encoder_hidden_states")}
    residuals = [inputs[f"down_block_additional_residuals.{i}"] for i in range(4)]
    full = unet(
        inputs["sample"],
        inputs["timestep"],
        down_block_additional_residuals=residuals,
        mid_block_additional_residual=inputs["mid_block_additional_residual"],
        **context,
    )
    agrees(full, outputs["sample"])
    agrees(unet(inputs["sample"], inputs["timestep"], **context), outputs["sample_no_residuals"])
    agrees(unet(inputs["sample"], 499, **context), outputs["sample_t499_no_residuals"])


@pytest.mark.parametrize(
    ("case", "options"),
    [("scale1", {}), ("scale0p7", {"conditioning_scale": 0.7}), ("guess_t749", {"guess_mode": True})],
)
@torch.no_grad()
def test_controlnet_agrees(golden, load, agrees, case, options):
    controlnet = tiny(AddSRControlNet, golden, load, "controlnet")
    inputs, outputs = load("controlnet", "inputs"), load("controlnet", "outputs")
    if case == "guess_t749":
        inputs["timestep"] = 749
    ours = controlnet(**inputs, **options)
    for i, residual in enumerate(ours.down_block_res_samples):
        agrees(residual, outputs[f"{case}.down_block_res_samples.{i}"])
    agrees(ours.mid_block_res_sample, outputs[f"{case}.mid_block_res_sample"])
    if f"{case}.repre" in outputs:
        agrees(ours.conditioning, outputs[f"{case}.repre"])
        for i, feature in enumerate(ours.feature_map):
            agrees(feature, outputs[f"{case}.feature_map.{i}"])


@pytest.mark.parametrize(("cls", "layout"), [(AddSRUNet, "unet_sd2base"), (AddSRControlNet, "controlnet_sd2base")])
def test_sd2_size_has_the_published_keys(golden, cls, layout):
    expected = json.loads((golden("key_layouts") / f"{layout}.json").read_text())["keys"]
    with torch.device("meta"):
        network = cls()
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == expected
