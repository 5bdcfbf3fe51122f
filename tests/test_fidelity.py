"""The dial from a model's own, most detailed weights to its faithful ones."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import addsr
from addsr.checkpoints.faithful import FAITHFUL_FILE
from addsr.errors import AddSRError, ModelError
from addsr.options import RestoreOptions

OWN_FILE = "diffusion_pytorch_model.safetensors"
PHOTO = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)


@pytest.fixture
def folder(compact_pipeline, tmp_path):
    """A model whose faithful U-Net is 1 % off; its autoencoder is the same in both."""
    compact_pipeline.save_pretrained(tmp_path / "model")
    unet = tmp_path / "model" / "unet"
    save_file({key: value * 1.01 for key, value in load_file(unet / OWN_FILE).items()}, unet / FAITHFUL_FILE)
    return tmp_path / "model"


def load(folder):
    return addsr.load(folder, device="cpu", precision="fp32")


@pytest.mark.parametrize("steps", [1, 4])
def test_the_ends_are_the_two_sets_of_weights(folder, tmp_path, steps):
    faithful = shutil.copytree(folder, tmp_path / "faithful")
    (faithful / "unet" / FAITHFUL_FILE).replace(faithful / "unet" / OWN_FILE)
    upscaler, other = load(folder), load(faithful)
    own = np.asarray(upscaler(PHOTO, steps=steps))
    assert np.array_equal(np.asarray(upscaler(PHOTO, steps=steps, fidelity=0.0)), own)
    faithful_end = np.asarray(upscaler(PHOTO, steps=steps, fidelity=1.0))
    assert np.array_equal(faithful_end, np.asarray(other(PHOTO, steps=steps, psr_weight=0.0)))
    assert np.array_equal(np.asarray(upscaler(PHOTO, steps=steps)), own)  # the model itself is untouched


def test_between_them_the_weights_are_interpolated(folder):
    own = load_file(folder / "unet" / OWN_FILE)
    middle = load(folder).at_fidelity(0.5)
    for key, value in middle.restorer.unet.state_dict().items():
        torch.testing.assert_close(value, own[key] * 1.005)
    assert middle.at_fidelity(0.5) is middle


def test_few_models_are_kept(folder):
    upscaler = load(folder)
    first, second = (upscaler.at_fidelity(fidelity) for fidelity in (0.9, 0.8))
    assert upscaler.at_fidelity(0.9) is first
    assert second.at_fidelity(0.9) is first
    for fidelity in (0.1, 0.2, 0.3):
        upscaler.at_fidelity(fidelity)
    assert upscaler.at_fidelity(0.9) is first  # as it was asked for last
    assert upscaler.at_fidelity(0.8) is not second


def test_many_at_once_open_it_once(folder):
    upscaler = load(folder)
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(upscaler.at_fidelity, [0.5] * 8))) == 1


def test_it_can_be_loaded_at_a_fidelity(folder):
    loaded = addsr.load(folder, device="cpu", precision="fp32", fidelity=0.5)
    assert loaded.at_fidelity(0.5) is loaded
    upscaler = load(folder)
    assert np.array_equal(np.asarray(loaded(PHOTO)), np.asarray(upscaler(PHOTO, fidelity=0.5)))
    assert np.array_equal(np.asarray(loaded(PHOTO, fidelity=0.0)), np.asarray(upscaler(PHOTO)))
    with pytest.raises(AddSRError, match="must be 0 to 1"):
        addsr.load(folder, fidelity=2.0)


def test_the_metadata_names_it(folder):
    upscaler = load(folder)
    assert upscaler.made_by(RestoreOptions())["fidelity"] == 0
    assert upscaler.made_by(RestoreOptions(fidelity=0.25))["fidelity"] == 0.25


def test_the_weight_of_the_refined_condition_falls_along_it(folder):
    upscaler = load(folder)
    weights = [upscaler.made_by(RestoreOptions(fidelity=fidelity))["psr_weight"] for fidelity in (0.0, 0.5, 1.0)]
    assert weights == [0.5, 0.25, 0.0]
    assert upscaler.made_by(RestoreOptions(fidelity=1.0, psr_weight=0.75))["psr_weight"] == 0.75


def test_models_with_one_set_say_so(compact_pipeline, tmp_path):
    compact_pipeline.save_pretrained(tmp_path / "model")
    upscaler = load(tmp_path / "model")
    upscaler(PHOTO, fidelity=0.0)
    with pytest.raises(AddSRError, match="one set of weights only"):
        upscaler(PHOTO, fidelity=0.5)


@pytest.mark.parametrize("fidelity", [-0.1, 1.1, float("nan")])
def test_out_of_range(folder, fidelity):
    with pytest.raises(AddSRError, match="it must be 0 to 1"):
        load(folder)(PHOTO, fidelity=fidelity)


def test_damaged_or_foreign_faithful_weights(folder):
    path = folder / "unet" / FAITHFUL_FILE
    tensors = load_file(path)
    tensors.pop("conv_out.bias")
    save_file(tensors, path)
    upscaler = load(folder)  # its own weights are sound
    with pytest.raises(ModelError, match=r"conv_out\.bias"):
        upscaler(PHOTO, fidelity=1.0)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="damaged"):
        upscaler(PHOTO, fidelity=1.0)
