"""A few small photos and random loss networks."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from addsr.data.photos import Photos


@pytest.fixture
def folder(tmp_path):
    """Four noisy photos of 90×80."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (80, 90, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def many_photos(tmp_path_factory):
    """Forty: enough that some are held out."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(40):
        Image.fromarray(rng.integers(0, 256, (80, 90, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def photos(folder):
    return Photos([folder])


@pytest.fixture
def lpips_weights(tmp_path):
    """Random weights in the layout of SqueezeNet LPIPS."""
    generator = torch.Generator().manual_seed(0)

    def conv(o, i, k):
        return torch.randn(o, i, k, k, generator=generator) * (2 / (i * k * k)) ** 0.5

    state = {"conv0.weight": conv(64, 3, 3), "conv0.bias": torch.zeros(64)}
    channels = 64
    for n, (squeeze, expand) in enumerate(((16, 64),) * 2 + ((32, 128),) * 2 + ((48, 192),) * 2 + ((64, 256),) * 2, 1):
        for part, o, i, k in (
            ("squeeze", squeeze, channels, 1),
            ("expand1x1", expand, squeeze, 1),
            ("expand3x3", expand, squeeze, 3),
        ):
            state |= {f"fire{n}.{part}.weight": conv(o, i, k), f"fire{n}.{part}.bias": torch.zeros(o)}
        channels = 2 * expand
    for i, width in enumerate((64, 128, 256, 384, 384, 512, 512)):
        state[f"lin{i}.weight"] = torch.rand(1, width, 1, 1, generator=generator)
    save_file(state, tmp_path / "lpips.safetensors")
    return tmp_path / "lpips.safetensors"
