"""The SD-2-size presets on a tiny model of the published layout: ControlNet, text, representation tokens, DINO heads."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import ViTConfig, ViTModel

import addsr
from tests.published import write_published
from tests.training.runs import train_tiny

SHORT = {"images": 4, "save": 4, "accumulate": 1}


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return write_published(tmp_path_factory.mktemp("release"))


def changed(before, after):
    return {key for key, value in before.items() if not torch.equal(value.half(), after[key])}


def test_teacher_then_distillation_from_a_release(release, many_photos, tmp_path):
    train_tiny("sd2-teacher", "--data", many_photos, "--init", release, "--out", tmp_path / "teacher", **SHORT)
    unet, controlnet = (
        changed(*(load_file(place / part / "diffusion_pytorch_model.safetensors") for place in (release, new)))
        for part, new in (("unet", tmp_path / "teacher" / "model"), ("controlnet", tmp_path / "teacher" / "model"))
    )
    assert unet
    assert all("image_attentions" in key for key in unet)
    assert "controlnet_mid_block.weight" in controlnet
    vit = ViTConfig(hidden_size=64, num_attention_heads=1, num_hidden_layers=2, intermediate_size=64, image_size=32)
    ViTModel(vit, add_pooling_layer=False).save_pretrained(tmp_path / "dino")
    student = tmp_path / "student"
    asked = addsr.load(tmp_path / "teacher" / "model", device="cpu", precision="fp32").restorer
    assert (asked.sampler.name, asked.defaults.num_inference_steps, asked.defaults.guidance_scale) == (
        "ancestral",
        50,
        5.5,
    )
    start = tmp_path / "teacher" / "model"
    for part in ("unet", "text_encoder", "image_encoder"):
        written = [load_file(path) for path in (start / part).glob("*.safetensors")]
        assert {value.dtype for tensors in written for value in tensors.values() if value.is_floating_point()} == {
            torch.float16
        }
    words = ("--data", many_photos, "--init", start, "--teacher", tmp_path / "teacher", "--dino", tmp_path / "dino")
    train_tiny("sd2-addsr", *words, "--out", student, **SHORT, precision="bf16")  # the preset's own
    rows = [json.loads(line) for line in (student / "stats.jsonl").read_text().splitlines()]
    assert {"generator/distillation", "generator/adversarial", "discriminator/total"} <= set(rows[-1])
    unet = changed(
        *(load_file(place / "unet" / "diffusion_pytorch_model.safetensors") for place in (release, student / "model"))
    )
    assert unet
    assert all("image_attentions" in key for key in unet)
    up = addsr.load(student / "model", device="cpu", precision="fp32")
    asked = up.restorer.defaults
    assert (up.restorer.sampler.name, asked.num_inference_steps, asked.guidance_scale) == ("addsr", 4, 1.0)
    assert up(Image.open(many_photos / "0.png").crop((0, 0, 16, 16)), steps=1).size == (64, 64)
