"""RAM and DAPE against the official code, and the key layouts of the released files at full size."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import ViTConfig, ViTModel

from addsr.checkpoints.ram import load_released_tagger, released_weights, tagger_sizes
from addsr.checkpoints.vision import _NAMES, vit_from_published
from addsr.models.tagger import TAG_FILE, THRESHOLD_FILE, Tagger
from addsr.weights.names import published_names, to_published

CASE = "ram_dape"


@pytest.fixture
def released(golden, tmp_path):
    """The release as it is published: pickles, with the tag list beside them."""
    folder = golden(CASE)
    torch.save({"model": load_file(folder / "ram_base.safetensors")}, tmp_path / "ram_swin_large_14m.pth")
    torch.save(load_file(folder / "dape_lora.safetensors"), tmp_path / "DAPE.pth")
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / TAG_FILE).write_text("\n".join(config["tag_list"]) + "\n")
    (tmp_path / THRESHOLD_FILE).write_text("\n".join(map(str, config["thresholds"])) + "\n")
    return tmp_path


@torch.no_grad()
def test_tokens_logits_and_tags_agree(released, golden, load, agrees):
    tagger = load_released_tagger(released / "ram_swin_large_14m.pth", released / "DAPE.pth")
    inputs, outputs = load(CASE, "inputs"), load(CASE, "outputs")
    tokens = tagger(inputs["image_norm"])
    agrees(tokens, outputs["embeds"])
    agrees(tagger.tag_logits(tokens), outputs["logits"])
    expected = json.loads((golden(CASE) / "config.json").read_text())["tags"]
    assert [", ".join(tags) for tags in tagger.tags(tokens)] == expected


@torch.no_grad()
def test_without_dape_it_is_ram(released, load, agrees):
    tagger = load_released_tagger(released / "ram_swin_large_14m.pth", None)
    inputs, outputs = load(CASE, "inputs"), load(CASE, "outputs")
    agrees(tagger(inputs["image_norm"]), outputs["embeds_without_dape"])
    agrees(tagger.tag_logits(outputs["embeds_without_dape"]), outputs["logits_without_dape"])


@torch.no_grad()
def test_a_saved_tagger_is_the_same(released, load, tmp_path):
    tagger = load_released_tagger(released / "ram_swin_large_14m.pth", released / "DAPE.pth")
    tagger.save_pretrained(tmp_path / "saved")
    again = Tagger.from_pretrained(tmp_path / "saved")
    pixels = load(CASE, "inputs")["image_norm"]
    assert torch.equal(again(pixels), tagger(pixels))
    assert (again.tag_names, again.thresholds) == (tagger.tag_names, pytest.approx(tagger.thresholds))


def layout(golden, name, part):
    keys = json.loads((golden("key_layouts") / f"{name}.json").read_text())[part]
    return {key: torch.zeros(shape, device="meta") for key, shape in keys.items()}


@pytest.mark.parametrize("part", ["used_for_tagging_and_embeds", "all_base"])
def test_the_published_size_takes_every_key(golden, part):
    ram, dape = layout(golden, "ram_swin_large_14m", part), layout(golden, "dape_lora", "dape_lora")
    weights = released_weights(ram, dape, "layout")
    with torch.device("meta"):
        tagger = Tagger(**tagger_sizes(weights, "layout"))
        for name, value in Tagger().config.items():
            assert name.startswith("_") or tagger.config[name] == (list(value) if isinstance(value, tuple) else value)
    tagger.put_published(weights, "layout")
    swin = sum(value.numel() for value in tagger.visual_encoder.parameters())
    assert swin == 195_198_516


@pytest.mark.parametrize(("name", "image_size"), [("dino_vits16_timm", 224), ("dinov2_vits14", 518)])
def test_released_vision_transformers_take_every_key(golden, name, image_size):
    keys = json.loads((golden("key_layouts") / f"{name}.json").read_text())
    vit = vit_from_published({key: torch.zeros(shape, device="meta") for key, shape in keys.items()}, name)
    assert vit.config.image_size == image_size


def test_query_key_and_value_are_taken_apart():
    config = ViTConfig(hidden_size=64, num_attention_heads=1, num_hidden_layers=1, intermediate_size=96, image_size=32)
    torch.manual_seed(0)
    vit = ViTModel(config, add_pooling_layer=False).eval()
    published = to_published(vit.state_dict(), published_names(vit.state_dict(), _NAMES))
    assert published["blocks.0.attn.qkv.weight"].shape == (192, 64)
    again = vit_from_published(published, "test")
    again.config.layer_norm_eps = config.layer_norm_eps
    for module in again.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = config.layer_norm_eps
    pixels = torch.rand(1, 3, 32, 32)
    assert torch.equal(again(pixels).last_hidden_state, vit(pixels).last_hidden_state)
