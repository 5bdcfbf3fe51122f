"""Published checkpoints in their own layout: loaded, converted, run, and damaged in every way."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

import addsr
from addsr.checkpoints.published import Beside, locate
from addsr.convert import convert_model
from addsr.errors import AddSRError, ModelError, OutputError
from addsr.models.unet import AddSRUNet
from addsr.pipelines.addsr import AddSRPipeline
from addsr.pipelines.seesr import SeeSRPipeline
from addsr.prompts.text import PromptEncoder, PromptTooLongWarning
from addsr.weights.reading import read_tensors
from tests.published import TAGS, UNET, WEIGHTS, write_base, write_published

SCHEDULER = Path("stable-diffusion-2-base", "scheduler", "scheduler_config.json")
FAST = {"device": "cpu", "precision": "fp32"}


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return write_published(tmp_path_factory.mktemp("release"))


@pytest.fixture
def copy(release, tmp_path):
    """A release to damage."""
    shutil.copytree(release.parent, tmp_path / "models")
    return tmp_path / "models" / "addsr"


@pytest.fixture(scope="module")
def up(release):
    return addsr.load(release, **FAST)


def photo(width=24, height=20):
    pixels = torch.rand(height, width, 3, generator=torch.Generator().manual_seed(3))
    return Image.fromarray((pixels * 255).byte().numpy())


def pixels(image):
    import numpy as np

    return torch.from_numpy(np.asarray(image).copy()).int()


def test_the_release_runs_as_it_is(up):
    restored = up(photo(), steps=2)
    assert restored.size == (96, 80)
    assert torch.equal(pixels(restored), pixels(up(photo(), steps=2)))
    for change in ({"prompt": "a dog"}, {"tags": False}, {"seed": 1}, {"psr_weight": 0}, {"start_point": "noise"}):
        assert not torch.equal(pixels(restored), pixels(up(photo(), steps=2, **change))), change


def test_guidance_needs_a_scale_other_than_one(up):
    plain = pixels(up(photo(), steps=1))
    assert torch.equal(plain, pixels(up(photo(), steps=1, negative_prompt="blur")))
    guided = pixels(up(photo(), steps=1, guidance_scale=5.5))
    assert not torch.equal(plain, guided)
    assert not torch.equal(guided, pixels(up(photo(), steps=1, guidance_scale=5.5, negative_prompt="something else")))


def test_guidance_of_one_or_less_is_none(up):
    plain = pixels(up(photo(), steps=1))
    for scale in (0, 0.5, 1):
        assert torch.equal(plain, pixels(up(photo(), steps=1, guidance_scale=scale)))


def test_later_steps_look_again_at_the_enlarged_photo(up):
    """With a PSR weight of 0 the tokens of the later steps are those of LR enlarged, as in the released code."""
    seen, encoder = [], up.restorer.image_encoder
    hook = encoder.register_forward_hook(lambda module, args, output: seen.append(output))
    up(photo(), steps=3, psr_weight=0)
    up(photo(), steps=3, psr_weight=0.5)
    hook.remove()
    assert len(seen) == 2 + 3  # of the photo, of the enlarged photo once; with refinement, of each mix
    assert not torch.equal(seen[0], seen[1])


def test_the_released_way_with_wide_photos(up):
    assert up(photo(210, 40), steps=1, compat="released").size == (840, 160)
    assert up(photo(60, 30), steps=1, compat="released").size == (240, 120)


def test_tiles_do_not_change_the_picture_much(up):
    large = photo(160, 150)
    whole, tiled = (pixels(up(large, steps=1, tile=tile, color_fix="none")) for tile in (1024, 320))
    assert (whole - tiled).abs().float().mean() < 3
    released = up(large, steps=2, compat="released", tile=320)
    assert released.size == (640, 600)


def test_sizes_that_nothing_divides(up):
    assert up(photo(33, 131), steps=1, scale=1.5).size == (50, 196)
    assert up(photo(1, 1), steps=1).size == (4, 4)
    assert up(photo(131, 133), steps=1, scale=4).size == (524, 532)


def test_progress_counts_every_tile(up):
    seen = []
    up(photo(160, 150), steps=2, tile=320, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert {total for _, total in seen} == {len(seen)}


def test_metadata_names_the_words(up):
    from addsr.options import RestoreOptions
    from addsr.prompts.options import PromptOptions

    made_by = up.made_by(RestoreOptions(words=PromptOptions("a dog"), compat="released"))
    assert made_by["prompt"] == "a dog"
    assert made_by["psr_weight"] == 0.4
    assert len(made_by["sha256"]) == 64


def test_the_file_names_what_was_recognised(up, tmp_path):
    from addsr.batch import run
    from addsr.jobs import plan
    from addsr.options import RestoreOptions
    from addsr.prompts.options import PromptOptions

    photo().save(tmp_path / "a.png")
    options = RestoreOptions(steps=1, words=PromptOptions("a dog"))
    jobs = plan([tmp_path / "a.png"], tmp_path / "out", "", "png", overwrite=False)
    [done] = run(jobs, up, options, "0", False, lambda *_: None)
    assert done.error is None
    made = json.loads(Image.open(jobs[0].target).text["addsr"])
    assert all(word in made["full_prompt"] for word in ("a dog", *made["recognised"]))
    assert "full_prompt" not in up.made_by(options)


def test_a_long_prompt_is_cut_aloud(up):
    for _ in range(2):  # the second time from memory
        with pytest.warns(PromptTooLongWarning, match="takes 77; cut off: '.*z"):
            up(photo(), steps=1, prompt="y" * 90 + "z" * 10)


def test_converted_is_the_same_model(release, up, tmp_path, monkeypatch):
    written = convert_model(locate(release), tmp_path / "converted")
    assert "MODEL_CARD.md" in written
    hashes = (tmp_path / "converted" / "SHA256SUMS").read_text().splitlines()
    assert len(hashes) == 5
    again = addsr.load(tmp_path / "converted", **FAST)
    assert torch.equal(pixels(again(photo(), steps=2)), pixels(up(photo(), steps=2)))
    pipeline = AddSRPipeline.from_pretrained(tmp_path / "converted")
    assert pipeline.image_encoder.tag_names == ["cat", "tree", "sky", "street"]
    alone = "import sys; from addsr import AddSRPipeline; AddSRPipeline.from_pretrained(sys.argv[1])"
    subprocess.run([sys.executable, "-c", alone, tmp_path / "converted"], check=True)  # nothing else is imported
    with pytest.raises(OutputError, match="exists already"):
        convert_model(locate(release), tmp_path / "converted")
    (tmp_path / "file").touch()
    with monkeypatch.context() as patched:  # told before anything is read
        patched.setattr("addsr.convert.load_restorer", lambda *_: pytest.fail("reads"))
        with pytest.raises(OutputError, match="out: cannot be written"):
            convert_model(locate(release), tmp_path / "file" / "out")
    half = convert_model(locate(release), tmp_path / "half", "bf16")
    assert half["unet/" + WEIGHTS] < 0.6 * written["unet/" + WEIGHTS]
    assert addsr.load(tmp_path / "half", device="cpu", precision="bf16")(photo(), steps=1).size == (96, 80)
    mixed = AddSRPipeline.from_pretrained(tmp_path / "half")  # some networks in float32, others as stored
    mixed.set_progress_bar_config(disable=True)
    assert mixed(photo().resize((96, 80)), num_inference_steps=1).images[0].size == (96, 80)


def test_seesr_and_its_turbo(release, tmp_path):
    models = tmp_path / "models"
    shutil.copytree(release.parent, models)
    (models / "addsr").rename(models / "seesr")
    up = addsr.load(models / "seesr", **FAST)
    asked = up.restorer.defaults
    assert (up.restorer.sampler.name, asked.num_inference_steps, asked.guidance_scale) == ("ancestral", 50, 5.5)
    assert up(photo(), steps=3).size == (96, 80)
    assert up(photo(200, 100), steps=2, compat="released").size == (800, 400)
    with pytest.raises(ModelError, match="needs SD-Turbo"):
        addsr.load(models / "seesr", beside=Beside(kind="seesr-turbo"), **FAST)
    write_base(models / "sd-turbo", AddSRUNet(**UNET | {"use_image_cross_attention": False}))
    turbo = addsr.load(models / "seesr", beside=Beside(kind="seesr-turbo"), **FAST)
    assert (turbo.restorer.timesteps(), turbo.restorer.defaults.guidance_scale) == ([999, 499], 1.0)
    ours, theirs = (load_file(models / name / "unet" / WEIGHTS) for name in ("seesr", "sd-turbo"))
    state = turbo.restorer.unet.state_dict()
    assert torch.equal(state["conv_in.weight"], theirs["conv_in.weight"])
    key = next(key for key in state if "image_attentions" in key)
    assert torch.equal(state[key], ours[key])
    assert turbo(photo()).size == (96, 80)
    shutil.copytree(models / "seesr", models / "seesr-turbo")
    assert locate(models / "seesr-turbo").defaults == turbo.restorer.defaults
    assert locate(models / "seesr").parts["vae"].parent.name == "stable-diffusion-2-base"
    convert_model(locate(models / "seesr", Beside(kind="seesr-turbo")), tmp_path / "turbo")
    assert addsr.load(tmp_path / "turbo", **FAST).restorer.timesteps() == [999, 499]
    assert SeeSRPipeline.from_pretrained(tmp_path / "turbo").restorer.timesteps(2) == [999, 499]
    converted = convert_model(locate(models / "seesr"), tmp_path / "converted")
    assert converted
    assert isinstance(SeeSRPipeline.from_pretrained(tmp_path / "converted"), AddSRPipeline)
    assert addsr.load(tmp_path / "converted", **FAST).restorer.sampler.name == "ancestral"


def test_older_names_of_the_autoencoder(copy, up):
    folder = copy.parent / "stable-diffusion-2-base" / "vae"
    old = {}
    for key, value in load_file(folder / WEIGHTS).items():
        if ".attentions." in key:
            names = ((".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn."))
            for new, name in names:
                key = key.replace(new, name)
        old[key] = value
    (folder / WEIGHTS).unlink()
    torch.save(old, folder / "diffusion_pytorch_model.bin")
    assert torch.equal(pixels(addsr.load(copy, **FAST)(photo(), steps=1)), pixels(up(photo(), steps=1)))


# --- what is missing or damaged


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


PICKLES = {
    "unet": ("addsr/unet", "diffusion_pytorch_model.bin"),
    "controlnet": ("addsr/controlnet", "diffusion_pytorch_model.bin"),
    "vae": ("stable-diffusion-2-base/vae", "diffusion_pytorch_model.bin"),
    "text encoder": ("stable-diffusion-2-base/text_encoder", "pytorch_model.bin"),
    "RAM": ("", "ram_swin_large_14m.pth"),
    "DAPE": ("", "DAPE.pth"),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("place", PICKLES)
def test_malicious_pickles_are_refused_and_not_run(copy, place, zipped, tmp_path):
    folder, name = PICKLES[place]
    folder = copy.parent / folder
    for path in folder.glob("*.safetensors"):
        path.unlink()
    victim = tmp_path / "executed"
    if zipped:
        torch.save({"model": Evil(victim)}, folder / name)
    else:
        (folder / name).write_bytes(pickle.dumps({"model": Evil(victim)}))
    for attempt in (lambda: addsr.load(copy, **FAST), lambda: convert_model(locate(copy), tmp_path / "out")):
        with pytest.raises(ModelError, match="refused") as caught:
            attempt()
        assert "\n" not in str(caught.value)
    assert not victim.exists()
    assert not (tmp_path / "out").exists()


def rewrite(path, changes):
    """Change some values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def damage_missing_key(folder):
    state = load_file(folder / "unet" / WEIGHTS)
    state.pop("conv_in.weight")
    save_file(state, folder / "unet" / WEIGHTS)
    return "1 missing: conv_in.weight"


def damage_extra_key(folder):
    save_file(load_file(folder / "controlnet" / WEIGHTS) | {"more": torch.ones(1)}, folder / "controlnet" / WEIGHTS)
    return "1 unexpected: more"


def damage_shape(folder):
    state = load_file(folder / "unet" / WEIGHTS)
    state["conv_in.weight"] = state["conv_in.weight"][:, :3].contiguous()
    save_file(state, folder / "unet" / WEIGHTS)
    return r"conv_in.weight is \[16, 3, 3, 3\] instead of \[16, 4, 3, 3\]"


def damage_truncated(folder):
    path = folder / "unet" / WEIGHTS
    path.write_bytes(path.read_bytes()[:4000])
    return "damaged or truncated"


def damage_truncated_pickle(folder):
    path = folder.parent / "ram_swin_large_14m.pth"
    path.write_bytes(path.read_bytes()[:4000])
    return "ram_swin_large_14m.pth: (damaged or truncated|refused)"


def damage_config(folder):
    rewrite(folder / "unet" / "config.json", {"act_fn": "gelu"})
    return "act_fn is 'gelu'"


def damage_config_kind(folder):
    (folder / "unet" / "config.json").write_text('"somebody/else"')
    return "holds no JSON object"


def damage_config_types(folder):
    rewrite(folder / "unet" / "config.json", {"mid_block_type": None, "attention_head_dim": 0})
    return "describes no AddSRUNet"


def damage_text_config(folder):
    path = folder.parent / "stable-diffusion-2-base" / "text_encoder" / "config.json"
    rewrite(path, {"num_attention_heads": 0})
    return "describes no CLIP text model"


def damage_vocabulary(folder):
    (folder.parent / "stable-diffusion-2-base" / "tokenizer" / "vocab.json").write_text("{")
    return "describes no CLIP tokenizer"


def damage_integers(folder):
    state = load_file(folder / "unet" / WEIGHTS)
    state["conv_in.weight"] = state["conv_in.weight"].to(torch.int8)
    save_file(state, folder / "unet" / WEIGHTS)
    return r"1 not of a floating-point type: conv_in.weight \(int8\)"


def damage_no_attentions(folder):
    state = {k: v for k, v in load_file(folder / "unet" / WEIGHTS).items() if "image_attentions" not in k}
    save_file(state, folder / "unet" / WEIGHTS)
    return "its weights have none"


def damage_cut_pickle(folder):
    (folder.parent / "DAPE.pth").write_bytes(b"\x80\x02M")
    return "DAPE.pth: (damaged|refused)"


def damage_other_base(folder):
    rewrite(folder.parent / SCHEDULER, {"prediction_type": "v_prediction"})
    return "needs Stable Diffusion.* as it predicts v_prediction instead of epsilon"


def damage_lists_encoding(folder):
    (folder.parent / "ram_tag_list.txt").write_bytes(b"\xff\xfe\x00")
    return "ram_tag_list.txt"


def damage_no_base(folder):
    shutil.rmtree(folder.parent / "stable-diffusion-2-base")
    return "addsr download sd2-base"


def damage_no_ram(folder):
    (folder.parent / "ram_swin_large_14m.pth").unlink()
    return "addsr download ram"


def damage_no_dape(folder):
    (folder.parent / "DAPE.pth").unlink()
    return "addsr download seesr"


def damage_dape_is_ram(folder):
    shutil.copy(folder.parent / "ram_swin_large_14m.pth", folder.parent / "DAPE.pth")
    return "is no adapter"


def damage_ram_is_dape(folder):
    shutil.copy(folder.parent / "DAPE.pth", folder.parent / "ram_swin_large_14m.pth")
    return "holds no RAM"


def damage_dape_lacks_one(folder):
    lora = torch.load(folder.parent / "DAPE.pth", weights_only=True)
    lora = {name: value for name, value in lora.items() if "layers.1.blocks.0" not in name}
    torch.save(lora, folder.parent / "DAPE.pth")
    return r"DAPE.pth: 2 adapters are missing, the first of them visual_encoder.layers.1.blocks.0.attn.qkv.lora_A"


def damage_sparse(folder):
    ram = torch.load(folder.parent / "ram_swin_large_14m.pth", weights_only=True)
    ram["model"]["image_proj.weight"] = ram["model"]["image_proj.weight"].to_sparse()
    torch.save(ram, folder.parent / "ram_swin_large_14m.pth")
    return "image_proj.weight is no plain tensor"


def damage_nested_json(folder):
    (folder / "unet" / "config.json").write_text('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}")
    return "config.json: is no valid JSON"


def damage_timesteps(folder):
    rewrite(folder.parent / SCHEDULER, {"num_train_timesteps": 500})
    return "num_train_timesteps is 500; it must be 1000"


def damage_betas(folder):
    rewrite(folder.parent / SCHEDULER, {"beta_end": "x\ny"})
    return "beta_end is"


def damage_tag_list(folder):
    (folder.parent / "ram_tag_list.txt").write_text("cat\n")
    return "ram_tag_list.txt: 1 tags and 4 thresholds for a tagger of 4 tags"


def damage_lfs_pointer(folder):
    (folder / "unet" / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    return f"unet/{WEIGHTS}: only a pointer to the file, as Git LFS leaves it"


def damage_lfs_pointer_to_a_pickle(folder):
    (folder.parent / "DAPE.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    return "DAPE.pth: only a pointer to the file, as Git LFS leaves it"


def damage_web_page(folder):
    (folder.parent / "ram_swin_large_14m.pth").write_text("\n<!DOCTYPE html><html>Quota exceeded</html>")
    return "ram_swin_large_14m.pth: a web page, not weights"


def damage_safetensors_by_another_name(folder):
    save_file({"a": torch.ones(1)}, folder.parent / "DAPE.pth")
    return r"DAPE.pth: safetensors by another name: let it end in \.safetensors"


def damage_cut_zip(folder):
    path = folder.parent / "ram_swin_large_14m.pth"
    path.write_bytes(path.read_bytes()[:-200])
    return r"ram_swin_large_14m.pth: damaged or truncated \(its end is missing\)$"


def damage_torchscript(folder):
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), folder.parent / "DAPE.pth")
    return r"DAPE.pth: refused \(TorchScript"


def damage_no_weights_at_all(folder):
    (folder.parent / "DAPE.pth").write_bytes(bytes(range(200)))
    return r"DAPE.pth: refused \(it is damaged, or no file of weights\)"


def change_ram(folder, change):
    path = folder.parent / "ram_swin_large_14m.pth"
    weights = torch.load(path, weights_only=True)["model"]
    change(weights)
    torch.save({"model": weights}, path)


ATTENTION = "visual_encoder.layers.1.blocks.0.attn"


def damage_ram_lacks_what_dape_adapts(folder):
    change_ram(folder, lambda weights: weights.pop(f"{ATTENTION}.qkv.weight"))
    return rf"ram_swin_large_14m.pth: the weights do not fit Tagger; 1 missing: {ATTENTION}\.qkv\.weight$"


def damage_ram_under_its_own_names(folder):
    change_ram(folder, lambda weights: weights.pop("visual_encoder.layers.0.blocks.0.norm1.weight"))
    return r"ram_swin_large_14m.pth: .* 1 missing: visual_encoder\.layers\.0\.blocks\.0\.norm1\.weight$"


def damage_scalar_adapter(folder):
    lora = torch.load(folder.parent / "DAPE.pth", weights_only=True)
    torch.save(lora | {f"{ATTENTION}.qkv.lora_A": torch.tensor(1.0)}, folder.parent / "DAPE.pth")
    return f"DAPE.pth: the adapter of {ATTENTION}.qkv.weight does not go together"


def damage_threshold(folder):
    (folder.parent / "ram_tag_list_threshold.txt").write_text("0.5 much 0.5 0.5")
    return "ram_tag_list_threshold.txt: could not convert"


def damage_only_turbo(folder):
    (folder.parent / "stable-diffusion-2-base").rename(folder.parent / "sd-turbo")
    return "sd-turbo is none, as its name is SD-Turbo's"


def damage_no_tokenizer(folder):
    for path in (folder.parent / "stable-diffusion-2-base" / "tokenizer").iterdir():
        path.unlink()
    return "tokenizer"


DAMAGES = [value for name, value in list(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_clear_sentence(copy, damage, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "nothing"))
    expected = damage(copy)
    with pytest.raises(ModelError, match=expected) as caught:
        addsr.load(copy, **FAST)
    assert "\n" not in str(caught.value)


def test_without_a_tag_list_only_tags_are_impossible(copy):
    (copy.parent / "ram_tag_list.txt").unlink()
    up = addsr.load(copy, **FAST)
    with pytest.raises(ModelError, match=r"has no ram_tag_list\.txt"):
        up(photo(), steps=1)
    assert up(photo(), steps=1, tags=False).size == (96, 80)


def test_a_model_converted_without_its_tag_list_takes_it_afterwards(copy, tmp_path):
    names = ("ram_tag_list.txt", "ram_tag_list_threshold.txt")
    for name in names:
        (copy.parent / name).rename(tmp_path / name)
    with pytest.warns(UserWarning, match=r"no ram_tag_list\.txt was found"):
        convert_model(locate(copy), tmp_path / "converted")
    for name in names:
        (tmp_path / name).rename(tmp_path / "converted" / name)
    assert addsr.load(tmp_path / "converted", **FAST).restorer.image_encoder.tag_names == TAGS


def test_tag_lists_as_they_lie_in_rams_repository(copy):
    (copy.parent / "ram" / "data").mkdir(parents=True)
    for name in ("ram_tag_list.txt", "ram_tag_list_threshold.txt"):
        (copy.parent / name).rename(copy.parent / "ram" / "data" / name)
    assert addsr.load(copy, **FAST).restorer.image_encoder.tag_names == TAGS


def test_tied_weights_of_a_pickle_are_converted(copy, tmp_path):
    state = load_file(copy / "unet" / WEIGHTS)
    tied = state["conv_in.bias"] = state["time_embedding.linear_1.bias"][: len(state["conv_in.bias"])]
    (copy / "unet" / WEIGHTS).unlink()
    torch.save(state, copy / "unet" / "diffusion_pytorch_model.bin")
    convert_model(locate(copy), tmp_path / "converted")
    assert torch.equal(load_file(tmp_path / "converted" / "unet" / WEIGHTS)["conv_in.bias"], tied)


def test_guidance_by_the_same_words_is_not_computed(up, monkeypatch):
    calls, forward = [], up.restorer.unet.forward
    monkeypatch.setattr(up.restorer.unet, "forward", lambda *args, **words: calls.append(1) or forward(*args, **words))
    words = {"tags": False, "prompt": "a dog", "added_prompt": "", "negative_prompt": "a dog,", "steps": 1}
    guided = up(photo(), guidance_scale=5.5, **words)
    assert len(calls) == 1
    assert torch.equal(pixels(guided), pixels(up(photo(), guidance_scale=1.0, **words)))


def test_unused_weights_of_ram_are_passed_over(copy, up):
    path = copy.parent / "ram_swin_large_14m.pth"
    ram = torch.load(path, weights_only=True)
    torch.save({"model": ram["model"] | {"logit_scale": torch.ones(())}}, path)
    with pytest.warns(UserWarning, match="logit_scale belongs to no part of RAM"):
        again = addsr.load(copy, **FAST)
    assert torch.equal(pixels(again(photo(), steps=1)), pixels(up(photo(), steps=1)))


def test_tag_lists_may_lie_with_the_model(copy, tmp_path):
    for name in ("ram_tag_list.txt", "ram_tag_list_threshold.txt"):
        (copy.parent / name).rename(copy / name)
    elsewhere = tmp_path / "cache"
    elsewhere.mkdir()
    for name in ("ram_swin_large_14m.pth", "DAPE.pth"):
        (copy.parent / name).rename(elsewhere / name)
    beside = Beside(ram=elsewhere / "ram_swin_large_14m.pth", dape=elsewhere / "DAPE.pth")
    assert addsr.load(copy, beside=beside, **FAST).restorer.image_encoder.tag_names == TAGS
    (copy / "ram_tag_list_threshold.txt").unlink()
    with pytest.warns(UserWarning, match=r"every tag is on from 0\.68"):
        addsr.load(copy, beside=beside, **FAST)


def test_a_converted_neighbour_is_no_base(copy):
    convert_model(locate(copy), copy.parent / "a-converted", "bf16")
    shutil.move(copy.parent / "stable-diffusion-2-base", copy.parent / "zzz")
    assert locate(copy).parts["vae"] == copy.parent / "zzz" / "vae"


def test_a_base_copied_into_the_model_with_its_index(copy):
    base = copy.parent / "stable-diffusion-2-base"
    for part in base.iterdir():
        shutil.move(part, copy / part.name)
    (copy / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    assert addsr.load(copy, **FAST)(photo(), steps=1).size == (96, 80)


def test_a_base_that_broke_off_is_passed_over_for_one_that_is_whole(copy):
    base = copy.parent / "stable-diffusion-2-base"
    shutil.copytree(base, copy.parent / "stable-diffusion-2-1-base")
    next((base / "vae").glob("*.safetensors")).unlink()
    assert locate(copy).parts["vae"] == copy.parent / "stable-diffusion-2-1-base" / "vae"
    with pytest.raises(ModelError, match="stable-diffusion-2-base: its vae/ holds no weights"):
        locate(copy, Beside(base=base))


def test_parts_of_a_whole_model_cannot_be_named(release, tmp_path):
    convert_model(locate(release), tmp_path / "whole")
    for word, value in (("kind", "seesr"), ("base", "somewhere"), ("ram", Path("x")), ("dape", Path("x"))):
        with pytest.raises(ModelError, match=f"so --{word} has no effect"):
            locate(tmp_path / "whole", Beside(**{word: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("psr_weight", 7),
        ("num_inference_steps", 0),
        ("num_inference_steps", 5000),
        ("start_point", "x"),
        ("color_fix", "zzz"),
        ("released_overlap", -5),
        ("guidance_scale", float("nan")),
    ],
)
def test_defaults_out_of_range_are_refused(release, tmp_path, name, value):
    convert_model(locate(release), tmp_path / "whole")
    index = tmp_path / "whole" / "model_index.json"
    rewrite(index, {name: value})
    with pytest.raises(ModelError, match=f"{name} in model_index.json is"):
        locate(tmp_path / "whole")


def test_a_neighbours_custom_pipeline_does_not_end_the_search_for_a_base(copy):
    shutil.copytree(copy.parent / "stable-diffusion-2-base", copy.parent / "a-custom-one")
    index = {"_class_name": ["my_pipeline", "MyPipeline"]}  # as diffusers writes one from a module of the user's
    (copy.parent / "a-custom-one" / "model_index.json").write_text(json.dumps(index))
    assert locate(copy).parts["vae"].parent.name == "stable-diffusion-2-base"


def test_prompts_are_encoded_where_weights_come_and_go(release):
    from accelerate import cpu_offload

    text_encoder = CLIPTextModel.from_pretrained(release.parent / "stable-diffusion-2-base" / "text_encoder")
    tokenizer = CLIPTokenizer.from_pretrained(release.parent / "stable-diffusion-2-base" / "tokenizer")
    expected = PromptEncoder(text_encoder, tokenizer)(["a cat"])
    cpu_offload(text_encoder, torch.device("cpu"))  # sequential offload: between uses, weights are on meta
    encoder = PromptEncoder(text_encoder, tokenizer, device=torch.device("cpu"))
    torch.testing.assert_close(encoder(["a cat"]), expected)


def test_a_damaged_neighbour_does_not_end_the_search_for_a_base(copy):
    shutil.copytree(copy, copy.parent / "another")
    (copy.parent / "another" / "model_index.json").write_text("{")
    for part in ("vae", "text_encoder", "tokenizer", "scheduler"):
        (copy.parent / "another" / part).mkdir()
    assert locate(copy).parts["vae"] == copy.parent / "stable-diffusion-2-base" / "vae"


def test_the_hash_of_a_converted_model_follows_its_weights(release, tmp_path):
    from addsr.checkpoints.hashes import weights_sha256

    convert_model(locate(release), tmp_path / "whole")
    path = tmp_path / "whole" / "unet" / WEIGHTS
    before, content = weights_sha256(locate(tmp_path / "whole")), path.read_bytes()
    stated = (tmp_path / "whole" / "SHA256SUMS").stat().st_mtime_ns
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(stated - 10**9, stated - 10**9))  # as a copy that keeps times does
    assert weights_sha256(locate(tmp_path / "whole")) != before
    path.write_bytes(content)
    assert weights_sha256(locate(tmp_path / "whole")) == before


def test_a_list_of_hashes_that_is_not_ours_hides_no_weights(copy):
    from addsr.checkpoints.hashes import weights_sha256

    (copy / "SHA256SUMS").write_text("")
    before = weights_sha256(locate(copy))
    lora = torch.load(copy.parent / "DAPE.pth", weights_only=True)
    torch.save({key: value * 2 for key, value in lora.items()}, copy.parent / "DAPE.pth")
    assert weights_sha256(locate(copy)) != before


def test_the_hash_covers_every_part(copy):
    from addsr.checkpoints.hashes import weights_sha256

    before = weights_sha256(locate(copy))
    lora = torch.load(copy.parent / "DAPE.pth", weights_only=True)
    torch.save({key: value * 2 for key, value in lora.items()}, copy.parent / "DAPE.pth")
    assert weights_sha256(locate(copy)) != before


def test_seesr_is_known_by_what_the_user_or_the_cache_calls_it(release, tmp_path):
    assert locate(release).sampler.name == "addsr"
    assert locate(release, name="someone/SEESR").sampler.name == "addsr"  # the folder's own name says otherwise
    snapshot = tmp_path / "models--someone--SEESR" / "snapshots" / "abc"
    shutil.copytree(release, snapshot)
    parts = {"base": release.parent / "stable-diffusion-2-base", "dape": release.parent / "DAPE.pth"}
    beside = Beside(ram=release.parent / "ram_swin_large_14m.pth", **parts)
    assert locate(snapshot, beside).sampler.name == "ancestral"
    inside = tmp_path / "seesr" / "checkpoint"  # what a folder above is called says nothing
    shutil.copytree(release, inside)
    assert locate(inside, beside, name=str(inside)).sampler.name == "addsr"


def test_steps_and_kinds_out_of_range(up, release):
    with pytest.raises(AddSRError, match="steps is 5; it must be 1 to 4"):
        up(photo(), steps=5)
    with pytest.raises(ModelError, match="unknown kind"):
        locate(release, Beside(kind="sdxl"))
    with pytest.raises(AddSRError, match="psr_weight has no effect"):
        addsr.load(release, beside=Beside(kind="seesr"), **FAST)(photo(), steps=2, psr_weight=0.5)


def test_converting_types_while_reading(tmp_path):
    tensors = {"a": torch.randn(5, 3), "b": torch.arange(3), "c": torch.tensor(2.5)}
    save_file(tensors, tmp_path / "x.safetensors")
    read = read_tensors(tmp_path / "x.safetensors", torch.bfloat16)
    assert {key: value.dtype for key, value in read.items()} == {
        "a": torch.bfloat16,
        "b": torch.int64,
        "c": torch.bfloat16,
    }
    assert torch.equal(read["a"], tensors["a"].bfloat16())
