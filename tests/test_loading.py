"""Models by name and folder, and every way in which one can be damaged."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import addsr
from addsr.checkpoints.hashes import weights_sha256
from addsr.checkpoints.published import locate
from addsr.errors import AddSRError, ModelError
from addsr.loading import find_model

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(compact_pipeline, tmp_path):
    compact_pipeline.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_folder_loads_with_its_defaults(folder):
    upscaler = addsr.load(folder, device="cpu", precision="fp32")
    assert upscaler.restorer.defaults.start_point == "noise"
    assert upscaler.sha256 == weights_sha256(locate(folder))


def test_unknown_names_and_empty_folders(tmp_path):
    with pytest.raises(ModelError, match="unknown model 'nonesuch'; bundled: compact"):
        find_model("nonesuch")
    with pytest.raises(ModelError, match="no model_index"):
        find_model(tmp_path)
    with pytest.raises(ModelError, match="nothing is downloaded"):
        find_model("nobody/nothing")


def damage_missing_key(folder):
    state = load_file(folder / "unet" / WEIGHTS)
    state.pop("conv_in.weight")
    save_file(state, folder / "unet" / WEIGHTS)


def damage_shape(folder):
    state = load_file(folder / "vae" / WEIGHTS)
    state["decoder.conv_in.weight"] = state["decoder.conv_in.weight"][:, :1].contiguous()
    save_file(state, folder / "vae" / WEIGHTS)


def damage_truncate(folder):
    path = folder / "unet" / WEIGHTS
    path.write_bytes(path.read_bytes()[:5000])


def damage_index(folder):
    (folder / "model_index.json").write_text("{")


def damage_kind(folder):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "Other"}))


def damage_class(folder):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"unet": ["os", "system"]}))


def damage_schedule(folder):
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"beta_schedule": "linear"}))


def damage_pickle(folder):
    (folder / "unet" / WEIGHTS).rename(folder / "unet" / "diffusion_pytorch_model.bin")


def damage_no_vae(folder):
    shutil.rmtree(folder / "vae")


@pytest.mark.parametrize("damage", [value for name, value in list(globals().items()) if name.startswith("damage_")])
def test_damage_is_one_clear_sentence(folder, damage):
    damage(folder)
    with pytest.raises(ModelError) as caught:
        addsr.load(folder, device="cpu")
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_devices_and_precisions(folder):
    with pytest.raises(AddSRError, match="unknown device"):
        addsr.load(folder, device="tpu")
    with pytest.raises(AddSRError, match="unknown precision"):
        addsr.load(folder, precision="int4")
    unet = addsr.load(folder, device="cpu", precision="bf16").restorer.unet
    assert {weight.dtype for weight in unet.parameters() if weight.ndim > 1} == {torch.bfloat16}


def test_the_public_api():
    pipelines = {"AddSRPipeline", "D3SRPipeline", "SeeSRPipeline"}
    assert set(addsr.__all__) == {"AddSRError", "Beside", "Upscaler", "__version__", "load"} | pipelines
    for name in addsr.__all__:
        assert getattr(addsr, name) is not None
    with pytest.raises(AttributeError):
        addsr.nonsense
