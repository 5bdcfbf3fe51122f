"""Networks over a picture in tiles: the windows by hand, the blend, and a picture that does not depend on its tiles."""

import math

import pytest
import torch
from torch import nn

from addsr.diffusion.tiled import Tiling, blend, plan_tiles
from addsr.runtime.cost import measure
from addsr.runtime.offload import Offload


@pytest.mark.parametrize("window", ["feather", "gaussian"])
@pytest.mark.parametrize("size", [(96, 96), (100, 40), (33, 210), (200, 150)])
@pytest.mark.parametrize("scale", [1, 8])
def test_weights_sum_to_one_everywhere(window, size, scale):
    tiles = plan_tiles(*size, Tiling(48, 8, window), scale=scale)
    total = torch.zeros(size[0] * scale, size[1] * scale)
    for row, column in tiles:
        total[row.start : row.stop, column.start : column.stop] += row.weights[:, None] * column.weights
    torch.testing.assert_close(total, torch.ones_like(total))


def test_the_released_window_by_hand():
    """Two tiles of 12 over 20: weights exp(-(x - m)² / 12² / 0.02), m = 5.5 across and 6 down."""
    tiles = plan_tiles(12, 20, Tiling(12, 4, "gaussian"))
    assert [(column.start, column.stop) for _, column in tiles] == [(0, 12), (8, 20)]
    first, second = (math.exp(-((x - 5.5) ** 2) / 144 / 0.02) for x in (9, 1))
    assert tiles[0][1].weights[9].item() == pytest.approx(first / (first + second), rel=1e-5)
    assert tiles[0][1].weights[3].item() == pytest.approx(1)
    rows = plan_tiles(20, 12, Tiling(12, 4, "gaussian"))
    first, second = (math.exp(-((y - 6) ** 2) / 144 / 0.02) for y in (9, 1))
    assert rows[0][0].weights[9].item() == pytest.approx(first / (first + second), rel=1e-5)


def test_small_pictures_are_not_cut():
    assert len(plan_tiles(64, 64, None)) == 1
    assert len(plan_tiles(96, 96, Tiling(96, 4, "gaussian"))) == 1
    assert len(plan_tiles(80, 130, Tiling(96, 4, "gaussian"))) == 2  # square tiles of the shorter side


def test_blending_what_agrees_changes_nothing():
    picture = torch.randn(2, 3, 70, 90, generator=torch.Generator().manual_seed(0))
    tiles = plan_tiles(70, 90, Tiling(32, 8))
    torch.testing.assert_close(blend(lambda rows, columns: picture[..., rows, columns], tiles), picture)
    half = blend(lambda rows, columns: picture[..., rows, columns].bfloat16(), tiles, torch.device("cpu"))
    assert half.dtype == torch.bfloat16


@pytest.mark.parametrize("options", [{"size": 8, "overlap": 8}, {"size": 8, "overlap": -1}, {"window": "hann"}])
def test_impossible_tilings_are_refused(options):
    with pytest.raises(ValueError, match=r"overlap|window"):
        Tiling(**options)


def test_a_local_model_gives_nearly_the_same_tiled_or_whole(compact_pipeline):
    restorer = compact_pipeline.restorer
    lr = torch.rand(1, 3, 200, 168, generator=torch.Generator().manual_seed(0))
    whole, tiled = (restorer(lr, num_inference_steps=2, tiling=tiling) for tiling in (None, Tiling(32, 16)))
    assert (tiled - whole).abs().mean() < 0.01 * whole.abs().mean()


class Moved(nn.Module):
    def __init__(self, seen, name):
        super().__init__()
        self.seen, self.name = seen, name

    def _apply(self, fn, recurse=True):
        self.seen.append((self.name, fn(torch.empty(0)).device.type))
        return self


def test_only_what_computes_is_on_the_device():
    seen = []
    groups = {name: [Moved(seen, name)] for name in ("vae", "denoiser")}
    offload = Offload(groups, torch.device("meta"))
    for name in ("vae", "vae", "text_encoder", "denoiser", "vae"):
        offload.use(name)
    assert seen == [
        ("vae", "meta"),
        ("vae", "cpu"),
        ("denoiser", "meta"),
        ("denoiser", "cpu"),
        ("vae", "meta"),
    ]
    Offload().use("anything")


def test_cost_by_hand():
    convolution = nn.Conv2d(3, 5, 3, padding=1, device="meta")
    picture = torch.zeros(1, 3, 7, 11, device="meta")
    cost = measure(lambda: convolution(convolution(picture)[:, :3]))
    assert cost.macs == 2 * 7 * 11 * 5 * 3 * 9
    assert (cost.attention_macs, cost.peak_bytes) == (0, 2 * 7 * 11 * 5 * 4)
    query = torch.zeros(1, 2, 6, 4, device="meta")
    assert (
        measure(lambda: nn.functional.scaled_dot_product_attention(query, query, query)).attention_macs
        == 2 * 2 * 36 * 4
    )
