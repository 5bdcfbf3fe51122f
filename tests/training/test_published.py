"""The SD-2-size presets on a tiny model of the published layout: ControlNet, text, representation tokens, DINO heads."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import ViTConfig, ViTModel
from typer.testing import CliRunner

import addsr
from addsr.cli.app import app
from tests.published import write_published

TINY = ("pairs.crop=64", "loop.images=4", "loop.batch=2", "loop.accumulate=1", "loop.save=4", "loop.report=2")


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return write_published(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def many_photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(40):
        Image.fromarray(rng.integers(0, 256, (80, 90, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def run(*arguments):
    settings = [word for change in (*TINY, "loop.precision=fp32", "loop.workers=0") for word in ("--set", change)]
    result = CliRunner().invoke(app, ["train", *map(str, arguments), *settings])
    assert result.exit_code == 0, (result.output, result.exception)


def changed(before, after):
    return {key for key, value in before.items() if not torch.equal(value.half(), after[key])}


def test_teacher_then_distillation_from_a_release(release, many_photos, tmp_path):
    run("sd2-teacher", "--data", many_photos, "--init", release, "--out", tmp_path / "teacher")
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
    words = ("--data", many_photos, "--init", release, "--teacher", tmp_path / "teacher", "--dino", tmp_path / "dino")
    run("sd2-addsr", *words, "--out", student)
    rows = [json.loads(line) for line in (student / "stats.jsonl").read_text().splitlines()]
    assert {"generator/distillation", "generator/adversarial", "discriminator/total"} <= set(rows[-1])
    unet = changed(
        *(load_file(place / "unet" / "diffusion_pytorch_model.safetensors") for place in (release, student / "model"))
    )
    assert unet
    assert all("image_attentions" in key for key in unet)
    up = addsr.load(student / "model", device="cpu", precision="fp32")
    assert up(Image.open(many_photos / "0.png").crop((0, 0, 16, 16)), steps=1).size == (64, 64)
