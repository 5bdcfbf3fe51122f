"""Half precision on CPUs that do not compute it: weights stay in it, and float32 computes."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import addsr
from addsr.evaluation.plan import Planner
from addsr.evaluation.profile import profile
from addsr.image.read import read_pil
from addsr.loading import load_tagger
from addsr.options import RestoreOptions
from addsr.runtime import device as devices
from addsr.runtime.widening import compute_in_float32, computing_dtype
from tests.published import write_published


@pytest.fixture
def without_half(monkeypatch):
    """A CPU with AVX2, such as most laptops have."""
    monkeypatch.setattr(devices.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(devices, "has_native_bf16", lambda device: False)
    monkeypatch.setattr(devices, "has_native_fp16", lambda: False)


def photo(height=24, width=20):
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8))


def weights(network):
    return [parameter for parameter in network.parameters() if parameter.ndim > 1]


def test_a_network_computes_as_its_rounded_weights_do_in_float32():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(8 * 36, 5)).bfloat16()
    expected = copy.deepcopy(network).float()
    before = [layer.weight.data_ptr() for layer in (network[0], network[3])]
    compute_in_float32(network)
    picture = torch.randn(2, 3, 8, 8)
    assert torch.equal(network(picture), expected(picture))
    assert [layer.parametrizations.weight.original.data_ptr() for layer in (network[0], network[3])] == before
    assert {weight.dtype for weight in weights(network)} == {torch.bfloat16}
    assert computing_dtype(network) == torch.float32
    assert computing_dtype(expected.half()) == torch.float16


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_release_takes_half_of_the_memory_and_computes_in_float32(precision, without_half, tmp_path, recwarn):
    folder = write_published(tmp_path)
    full, half = (addsr.load(folder, device="cpu", precision=p) for p in ("fp32", precision))
    assert not [warning for warning in recwarn if "slowly" in str(warning.message)]
    assert half.restorer.placement.dtype == torch.float32
    assert half.describer is not None
    assert half.describer.encode_prompt is not None
    for network in [*half.restorer.networks, half.describer.encode_prompt.open()]:
        assert all(weight.dtype.itemsize == 2 for weight in weights(network) if weight.numel() > 4096)
    plans = [Planner(up)(read_pil(photo()), RestoreOptions()).weights for up in (full, half)]
    assert plans[1] == pytest.approx(plans[0] / 2, rel=0.1)
    for options in ({"steps": 1}, {"steps": 2, "guidance_scale": 2.0}, {"steps": 1, "compat": "released"}):
        pictures = [np.asarray(up(photo(), **options)).astype(int) for up in (full, half)]
        assert abs(pictures[0] - pictures[1]).mean() < 2
    assert load_tagger(folder, "cpu", precision).tags(torch.rand(3, 30, 40)) is not None


def test_a_release_is_profiled_as_it_is_computed(without_half, tmp_path):
    folder = write_published(tmp_path)
    full, half = (profile(str(folder), 128, 1, timed=True, precision=precision) for precision in ("fp32", "bf16"))
    assert half.weight_bytes == full.weight_bytes / 2
    assert [stage.peak_bytes for stage in half.stages.values()] == [stage.peak_bytes for stage in full.stages.values()]
    assert half.seconds is not None


def test_only_x86_and_only_what_its_cpu_does_not_compute(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(devices.platform, "machine", lambda: "x86_64")
    for native in (False, True):
        monkeypatch.setattr(devices, "has_native_bf16", lambda device, native=native: native)
        assert devices.only_emulates(torch.bfloat16, cpu) is not native
        monkeypatch.setattr(devices, "has_native_fp16", lambda native=native: native)
        assert devices.only_emulates(torch.float16, cpu) is not native
        assert not devices.only_emulates(torch.float32, cpu)
        assert not devices.only_emulates(torch.bfloat16, torch.device("cuda"))
    monkeypatch.setattr(devices.platform, "machine", lambda: "arm64")
    assert not devices.only_emulates(torch.float16, cpu)
