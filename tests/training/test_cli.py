"""addsr train and addsr degrade as a user runs them."""

import json
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import addsr
from addsr.cli.app import app
from addsr.data.degradation import DegradationSettings, StageSettings
from addsr.data.mild import MildSettings
from addsr.data.pairs import PairSettings
from addsr.errors import TrainingError
from addsr.training.config import load_preset, make_settings, merged, preset_names, table_assignment
from addsr.training.describe import attribute_docs
from addsr.training.loop import LoopSettings
from addsr.training.networks import DefaultSettings, networks_from
from addsr.training.tasks.building import SETTINGS
from addsr.training.tasks.d3sr import D3SRSettings
from addsr.training.tasks.student import StudentSettings
from addsr.training.tasks.teacher import TeacherSettings

TINY = """
[vae]
latent_channels = 4
encoder_width = 8
encoder_layers = 1
decoder_width = 8
decoder_layers = 1
[unet]
in_channels = 4
out_channels = 4
block_out_channels = [8, 16]
down_block_types = ["DownBlock2D", "DownBlock2D"]
mid_block_type = "UNetMidBlock2D"
up_block_types = ["UpBlock2D", "UpBlock2D"]
layers_per_block = 1
attention_head_dim = 1
cross_attention_dim = "none"
use_image_cross_attention = false
norm_num_groups = 1
norm_type = "channel"
conditioning = "unshuffle"
conditioning_skip = true
[pairs]
crop = 64
[task]
lpips = 0.0
lpips_final = 0.0
[loop]
images = 16
batch = 4
report = 8
save = 8
workers = 0
[defaults]
start_point = "noise"
num_inference_steps = 1
color_fix = "none"
"""


@pytest.fixture
def preset(tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY)
    return tmp_path / "tiny.toml"


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_start_of_a_run_is_kept_as_the_faithful_weights(preset, folder, tmp_path):
    assert run("train", preset, "--data", folder, "--out", tmp_path / "first").exit_code == 0
    preset.write_text('faithful = "init"\n' + TINY)
    for number, start in enumerate((tmp_path / "first", tmp_path / "run0" / "model", tmp_path / "run0")):
        out = tmp_path / f"run{number}"
        result = run("train", preset, "--init", start, "--data", folder, "--out", out, "--seed", number)
        assert result.exit_code == 0, result.output
        for part in ("unet", "vae"):  # of the second run too: what leads away from them is one way
            kept = load_file(out / "model" / part / "diffusion_pytorch_model.faithful.safetensors")
            first = load_file(tmp_path / "first" / "model" / part / "diffusion_pytorch_model.safetensors")
            assert all(torch.equal(value, first[key]) for key, value in kept.items())
    other, resumed = tmp_path / "another", ("--resume", "--set", "loop.images=20", "--data", folder)
    preset.write_text(TINY)
    assert run("train", preset, "--data", folder, "--out", other, "--seed", 9).exit_code == 0
    assert run("train", "--out", tmp_path / "run0", "--init", other, *resumed).exit_code == 0
    kept = load_file(tmp_path / "run0" / "model" / "vae" / "diffusion_pytorch_model.faithful.safetensors")
    assert all(torch.equal(value, first[key]) for key, value in kept.items())
    (tmp_path / "first").rename(tmp_path / "moved")
    again = run("train", "--out", tmp_path / "run0", "--init", tmp_path / "moved", *resumed)
    assert again.exit_code == 0, again.output
    assert f"is gone: the faithful weights are those of {tmp_path / 'moved'}" in again.output
    up = addsr.load(tmp_path / "run2" / "model")
    assert up(Image.open(folder / "0.png"), fidelity=0.5).size[0] > 0
    preset.write_text('faithful = "compact"\n' + TINY)
    result = run("train", preset, "--data", folder, "--out", tmp_path / "other")
    assert result.exit_code == 1
    assert "faithful weights do not fit" in result.output
    assert not (tmp_path / "other").exists()


def test_a_larger_network_on_the_autoencoder_of_the_start(preset, folder, tmp_path):
    start, large = tmp_path / "start", tmp_path / "large"
    assert run("train", preset, "--data", folder, "--out", start).exit_code == 0
    preset.write_text(
        f'extends = "compact-teacher"\ninit = "{start}"\n[unet]\nblock_out_channels = [16, 24]\n[pairs]\ncrop = 64\n'
        "[loop]\nimages = 16\nbatch = 4\nreport = 8\nsave = 8\nworkers = 0\n"
    )
    assert run("train", preset, "--data", folder, "--out", large).exit_code == 0
    again = run("train", "--out", large, "--resume", "--set", "loop.images=24")  # and a run from it
    assert again.exit_code == 0, again.output
    assert networks_from(large).restorer.unet.config["block_out_channels"] == [16, 24]
    unet, vae = (load_file(large / "model" / part / "diffusion_pytorch_model.safetensors") for part in ("unet", "vae"))
    first = load_file(start / "model" / "vae" / "diffusion_pytorch_model.safetensors")
    assert unet["conv_in.weight"].shape[0] == 16
    assert all(torch.equal(value, first[key]) for key, value in vae.items())
    other = run(
        "train", preset, "--data", folder, "--out", tmp_path / "other", "--init", start, "--set", "vae.factor=2"
    )
    assert other.exit_code == 1
    assert "table [vae] has no effect" in other.output


def test_a_preset_gives_up_its_networks_to_a_start(preset, folder, tmp_path):
    assert run("train", preset, "--data", folder, "--out", tmp_path / "first").exit_code == 0
    result = run("train", preset, "--data", folder, "--out", tmp_path / "run", "--init", tmp_path / "first")
    assert f"the networks are those of {tmp_path / 'first'}: [unet] and [vae] of the preset is passed over" in " ".join(
        result.output.split()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("vae.latent_channels=8", r"unet.in_channels is 4; vae.latent_channels is 8"),
        ("vae.latent_channels=64", r"vae.latent_channels is 64; with a factor of 4 it must be 1 to 48"),
        ("vae.factor=8", r"unet.conditioning_factor is 4; vae.factor is 8"),
        ("unet.block_out_channels=[]", "the networks cannot be built from the preset"),
        ("task.trainable=[]", "task.trainable is empty"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(preset, folder, tmp_path, change, message):
    result = run("train", preset, "--data", folder, "--out", tmp_path / "run", "--set", change)
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert message in result.output


def test_the_start_of_a_run_without_one_cannot_be_kept(preset, folder, tmp_path):
    preset.write_text('faithful = "init"\n' + TINY)
    result = run("train", preset, "--data", folder, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert "faithful is init, and the run starts from no model" in result.output


def test_other_processes_are_silent_and_paths_of_a_preset_last(preset, folder, tmp_path, monkeypatch):
    assert run("train", preset, "--data", folder, "--out", tmp_path / "first").exit_code == 0
    monkeypatch.chdir(tmp_path)
    preset.write_text('init = "first"\nfaithful = "init"\n' + TINY[TINY.index("[pairs]") :])
    monkeypatch.setenv("RANK", "1")  # accelerate alone asks for more than this variable
    result = run("train", preset, "--data", folder, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "model:" not in result.output
    assert json.loads((tmp_path / "run" / "config.json").read_text())["init"] == str(tmp_path / "first")


def test_a_model_that_cannot_be_written_can_be_written_later(preset, folder, tmp_path, monkeypatch):
    def full(*_args, **_more):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("addsr.training.export.save_pipeline", full)
        result = run("train", preset, "--data", folder, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert "the model cannot be written" in result.output
    assert "No space left on device" in result.output
    assert not [path.name for path in (tmp_path / "run").iterdir() if "model" in path.name]
    assert run("train", "--out", tmp_path / "run", "--resume").exit_code == 0
    assert addsr.load(tmp_path / "run" / "model")


def test_what_does_not_train_stays_with_the_run(preset, folder, tmp_path):
    out = tmp_path / "run"
    (out / "frozen").mkdir(parents=True)
    (out / "frozen" / "vae.safetensors").write_bytes(b"of a run that was killed before its first checkpoint")
    frozen = ["--set", 'task.trainable=["unet.*", "vae.decoder.*"]']  # the encoder has its start from the photos
    assert run("train", preset, "--data", folder, "--out", out, *frozen).exit_code == 0
    encoder = {
        key: value
        for key, value in load_file(out / "model" / "vae" / "diffusion_pytorch_model.safetensors").items()
        if key.startswith("encoder.")
    }
    again = networks_from(out).restorer.vae.state_dict()
    assert all(torch.equal(value, again[key].half()) for key, value in encoder.items())
    latest = max(out.glob("checkpoint-*"))
    assert not any(key.startswith("encoder.") for key in load_file(latest / "vae.safetensors"))
    assert run("train", "--out", out, "--resume", "--set", "loop.images=24").exit_code == 0
    later = load_file(out / "model" / "vae" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(value, later[key]) for key, value in encoder.items())


def test_what_started_from_the_photos_and_does_not_train_stays_too(preset, folder, tmp_path):
    out, frozen = tmp_path / "run", ["--set", 'task.trainable=["unet.*"]', "--set", "task.autoencoder=0.0"]
    assert run("train", preset, "--data", folder, "--out", out, *frozen).exit_code == 0
    first = load_file(out / "model" / "vae" / "diffusion_pytorch_model.safetensors")
    again = networks_from(out).restorer.vae.state_dict()
    assert all(torch.equal(value, again[key].half()) for key, value in first.items())
    assert run("train", "--out", out, "--resume", "--set", "loop.images=24").exit_code == 0
    later = load_file(out / "model" / "vae" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(value, later[key]) for key, value in first.items())


def test_what_does_not_train_outlives_what_it_was_read_from(preset, folder, tmp_path):
    assert run("train", preset, "--data", folder, "--out", tmp_path / "first").exit_code == 0
    out, frozen = tmp_path / "run", ["--set", 'task.trainable=["unet.*"]', "--set", "task.autoencoder=0.0"]
    start = tmp_path / "first" / "model"
    assert run("train", preset, "--data", folder, "--out", out, "--init", start, *frozen).exit_code == 0
    path = Path("vae") / "diffusion_pytorch_model.safetensors"
    first = load_file(out / "model" / path)
    save_file({key: value + 1 for key, value in load_file(start / path).items()}, start / path)
    assert run("train", "--out", out, "--resume", "--set", "loop.images=24").exit_code == 0
    for vae in (load_file(out / "model" / path), networks_from(out).restorer.vae.state_dict()):
        assert all(torch.equal(value, vae[key].half()) for key, value in first.items())


def test_a_run_whose_checkpoints_lack_what_does_not_train_goes_on(preset, folder, tmp_path):
    """As those of earlier versions did."""
    assert run("train", preset, "--data", folder, "--out", tmp_path / "first").exit_code == 0
    out, frozen = tmp_path / "run", ["--set", 'task.trainable=["unet.*"]', "--set", "task.autoencoder=0.0"]
    assert run("train", preset, "--data", folder, "--out", out, "--init", tmp_path / "first", *frozen).exit_code == 0
    shutil.rmtree(out / "frozen")
    for path in out.glob("checkpoint-*/vae.safetensors"):
        path.unlink()
    for images in (24, 32):
        again = run("train", "--out", out, "--resume", "--set", f"loop.images={images}")
        assert again.exit_code == 0, again.output


def test_what_trains_cannot_change_on_resuming(preset, folder, tmp_path):
    def only(part):
        return ["--set", f'task.trainable=["unet.{part}.*"]', "--set", "task.autoencoder=0.0"]

    out = tmp_path / "run"
    assert run("train", preset, "--data", folder, "--out", out, *only("conv_in")).exit_code == 0
    before = sorted(path.name for path in out.iterdir())
    again = run("train", "--out", out, "--resume", "--set", "loop.images=24", *only("conv_out"))
    assert again.exit_code == 1
    assert "unet.conv_in.bias trained in it and trains not now" in again.output
    assert sorted(path.name for path in out.iterdir()) == before


def test_an_adversary_may_be_switched_off_on_resuming(preset, folder, tmp_path):
    out, on = tmp_path / "run", ["--set", "task.adversarial=0.1"]
    assert run("train", preset, "--data", folder, "--out", out, *on).exit_code == 0
    off = ["--set", "task.adversarial=0.0", "--set", "loop.images=24"]
    again = run("train", "--out", out, "--resume", *off)
    assert again.exit_code == 0, again.output


def test_a_teacher_of_other_latents_is_refused(preset, folder, tmp_path):
    task, defaults = "lpips = 0.0\nlpips_final = 0.0\n", "num_inference_steps = 1"
    of_all_timesteps = TINY.replace(task, 'kind = "teacher"\n').replace(defaults, 'sampler = "ancestral"')
    (tmp_path / "teacher.toml").write_text(of_all_timesteps)
    for seed in (1, 2):
        made = run("train", tmp_path / "teacher.toml", "--data", folder, "--out", tmp_path / str(seed), "--seed", seed)
        assert made.exit_code == 0, made.output
    words = ["--set", 'task.trainable=["unet.*"]', "--set", "task.autoencoder=0.0", "--set", "task.distillation=1.0"]
    words += ["--data", folder, "--init", tmp_path / "1", "--set", "defaults.sampler=addsr"]
    refused = run("train", preset, *words, "--out", tmp_path / "a", "--teacher", tmp_path / "2")
    assert "so their latents differ" in refused.output
    for teacher in (tmp_path / "1", tmp_path / "1" / "model"):  # rounded to float16
        taken = run("train", preset, *words, "--out", tmp_path / teacher.name / "b", "--teacher", teacher)
        assert taken.exit_code == 0, taken.output
    index = tmp_path / "1" / "model" / "model_index.json"
    index.write_text(index.read_text().replace('"SeeSRPipeline"', '"D3SRPipeline", "one_step_timestep": 399'))
    refused = run("train", preset, *words, "--out", tmp_path / "c", "--teacher", tmp_path / "1" / "model")
    assert "a model of the sampler d3sr knows few timesteps, a teacher all" in refused.output.replace("\n", " ")


def test_a_student_without_refinement_is_not_refined(preset, folder, tmp_path):
    settings = ["--set", "task.psr=false", "--set", "defaults.psr_weight=0.5"]
    assert run("train", preset, "--data", folder, "--out", tmp_path / "run", *settings).exit_code == 0
    assert addsr.load(tmp_path / "run" / "model").restorer.defaults.psr_weight == 0


def test_train_makes_a_model_that_upscales(preset, folder, tmp_path):
    (folder / "broken.jpg").write_bytes(b"x")
    result = run("train", preset, "--data", folder, "--out", tmp_path / "run", "--seed", 3)
    assert result.exit_code == 0, result.output
    assert "left out, unreadable" in result.output
    assert "16 images, finished" in result.output
    assert len(list((tmp_path / "run" / "samples").glob("*.png"))) == 2
    assert json.loads((tmp_path / "run" / "config.json").read_text())["loop"]["seed"] == 3
    picture = addsr.load(tmp_path / "run" / "model")(Image.open(folder / "0.png"))
    assert picture.size == (360, 320)


def test_pairs_alone_suffice_and_damaged_ones_are_named(preset, folder, tmp_path):
    assert run("degrade", folder, "-o", tmp_path / "pairs", "--crop", 72, "--count", 2).exit_code == 0
    damaged = sorted((tmp_path / "pairs" / "hr").iterdir())[1]
    damaged.write_bytes(damaged.read_bytes()[:-2000])
    result = run("train", preset, "--pairs", tmp_path / "pairs", "--out", tmp_path / "run", "--set", "pairs.holdout=2")
    assert result.exit_code == 0, result.output
    assert "left out, damaged" in result.output
    assert damaged.name in result.output
    result = run("train", preset, "--out", tmp_path / "other")
    assert result.exit_code == 2
    assert "or --pairs" in " ".join(result.output.split())


def test_settings_of_the_optimiser_change_on_resuming(preset, folder, tmp_path):
    assert run("train", preset, "--data", folder, "--out", tmp_path / "run").exit_code == 0
    change = ("--set", "loop.images=24", "--set", "loop.weight_decay=0.5", "--set", "loop.betas=[0.5,0.6]")
    assert run("train", "--out", tmp_path / "run", "--resume", *change).exit_code == 0
    state = torch.load(tmp_path / "run" / "checkpoint-000000024" / "optimizers.pt", weights_only=True)
    group = state["generator"]["param_groups"][0]
    assert (tuple(group["betas"]), group["weight_decay"]) == ((0.5, 0.6), 0.5)


def test_a_run_is_not_overwritten_but_resumed(preset, folder, tmp_path):
    assert run("train", preset, "--data", folder, "--out", tmp_path / "run").exit_code == 0
    again = run("train", preset, "--data", folder, "--out", tmp_path / "run")
    assert again.exit_code == 1
    assert "holds a run already" in again.output
    longer = run("train", "--out", tmp_path / "run", "--resume", "--set", "loop.images=24")
    assert longer.exit_code == 0, longer.output
    assert "24 images, finished" in longer.output
    other = run("train", "--out", tmp_path / "run", "--resume", "--init", "compact")
    assert (other.exit_code, "began with networks of its own" in " ".join(other.output.split())) == (2, True)


def test_resuming_before_the_first_checkpoint_is_the_same_run(preset, folder, tmp_path):
    """The start from principal components included."""
    run("train", preset, "--data", folder, "--out", tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "early", ignore=shutil.ignore_patterns("checkpoint-*", "model"))
    assert run("train", "--out", tmp_path / "early", "--resume").exit_code == 0
    path = "model/unet/diffusion_pytorch_model.safetensors"
    a, b = (load_file(tmp_path / name / path) for name in ("whole", "early"))
    assert all(torch.equal(value, b[key]) for key, value in a.items())


def test_a_checkpoint_that_was_not_measured_is_measured_on_resuming(preset, folder, tmp_path):
    """The run was killed in between."""
    out = tmp_path / "run"
    run("train", preset, "--data", folder, "--out", out)
    whole = (out / "held.jsonl").read_text()
    sheet = max((out / "samples").iterdir())
    torn = "".join(whole.splitlines(keepends=True)[:-1]) + '{"images": 1'
    (out / "held.jsonl").write_text(torn)
    sheet.unlink()
    for _ in range(2):  # and once only
        assert run("train", "--out", out, "--resume").exit_code == 0
        assert (out / "held.jsonl").read_text() == whole
        assert sheet.is_file()


def test_what_a_run_has_no_use_for_is_refused_on_resuming_too(preset, folder, tmp_path):
    assert run("train", preset, "--data", folder, "--out", tmp_path / "run").exit_code == 0
    again = run("train", "--out", tmp_path / "run", "--resume", "--dists", __file__)
    assert again.exit_code == 1
    assert "--dists has no effect, as the run is of task.kind student" in again.output


def test_a_resume_that_fails_leaves_the_run_as_it_was(preset, folder, tmp_path):
    run("train", preset, "--data", folder, "--out", tmp_path / "run")
    kept = (tmp_path / "run" / "config.json").read_bytes()
    failed = run("train", "--out", tmp_path / "run", "--resume", "--set", "task.adversarial=0.1")
    assert failed.exit_code == 1
    assert "does not fit this run" in failed.output
    assert (tmp_path / "run" / "config.json").read_bytes() == kept


def test_large_crops_and_photos_of_their_size(preset, tmp_path):
    (tmp_path / "large").mkdir()
    for name in "ab":
        Image.effect_noise((330, 320), 60).convert("RGB").save(tmp_path / "large" / f"{name}.png")
    short = ["--set", "pairs.crop=320", "--set", "loop.images=1", "--set", "loop.batch=1"]
    result = run("train", preset, "--data", tmp_path / "large", "--out", tmp_path / "large" / "run", *short)
    assert result.exit_code == 0, result.output
    again = run("train", "--out", tmp_path / "large" / "run", "--resume", "--set", "loop.images=2")
    assert again.exit_code == 0, again.output  # its own samples are not taken for photos


def test_a_run_starts_from_another(preset, folder, tmp_path):
    run("train", preset, "--data", folder, "--out", tmp_path / "a")
    still = ["--set", "loop.rate=0.0", "--set", "loop.weight_decay=0.0"]
    result = run("train", preset, "--data", folder, "--init", tmp_path / "a", "--out", tmp_path / "b", *still)
    assert result.exit_code == 0, result.output
    for name in ("unet", "vae"):
        a, b = (load_file(tmp_path / x / "model" / name / "diffusion_pytorch_model.safetensors") for x in "ab")
        assert all(torch.equal(value, b[key]) for key, value in a.items())


def test_finetuning_starts_from_the_bundled_model(folder, tmp_path):
    short = ["--set", "loop.images=2", "--set", "loop.batch=2", "--set", "pairs.crop=64", "--set", "loop.workers=0"]
    result = run("train", "--finetune", "--data", folder, "--out", tmp_path / "run", *short)
    assert result.exit_code == 0, result.output
    assert addsr.load(tmp_path / "run" / "model")(Image.new("RGB", (8, 8))).size == (32, 32)
    assert "_name_or_path" not in (tmp_path / "run" / "model" / "unet" / "config.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "loop.batch"], "not of the form TABLE.KEY=VALUE"),
        (["--set", "soup.batch=1"], "unknown table 'soup'"),
        (["--set", "loop.bach=1"], "unknown setting loop.bach"),
        (["--set", "loop.batch=many"], "loop.batch is 'many'; it must be int"),
        (["--set", "task.lpips=0.5"], "give --lpips (see"),
        (["--set", "task.distillation=1.0"], "needs a teacher"),
        (
            ["--set", "task.distillation=1.0", "--set", "task.lpips=1.0"],
            "lpips_final=0; task.distillation needs a teacher",
        ),
        (["--set", "task.adversarial=0.1", "--set", "task.discriminator=dino"], "give --dino FOLDER"),
        (["--set", "defaults.sampler=ancestral"], "a student takes AddSR's steps"),
        (["--set", "defaults.sampler=euler"], "defaults.sampler is 'euler'"),
        (["--set", "task.kind=critic"], "it must be student, teacher or d3sr"),
        (["--set", "pairs.crop=512"], "no usable photo"),
        (["--set", "task.distillation=1.0", "--teacher", "compact"], "compact: a model of the sampler addsr knows few"),
        (["--set", "loop.betas=[0.9]"], "loop.betas is [0.9]; it must have 2 values"),
        (["--set", "task.gammas=['a']"], "task.gammas has 'a'; it must hold numbers"),
        (["--set", "pairs.crop=50"], "pairs.crop is 50; it must be a multiple of 32"),
        (["--set", "unet.colour=1"], "the networks cannot be built"),
        (["--set", "defaults.mood=1"], "unknown setting defaults.mood"),
        (["--set", "defaults.psr_weight=5"], "defaults.psr_weight is 5.0; it must be 0 to 1"),
        (["--set", "defaults.start_point=foo"], "defaults.start_point is 'foo'"),
        (["--set", "defaults.color_fix=foo"], "defaults.color_fix is 'foo'"),
        (["--set", "defaults.prediction_type=foo"], "defaults.prediction_type is 'foo'"),
        (["--set", "defaults.num_inference_steps=10"], "defaults.num_inference_steps is 10; it must be 1 to 4"),
        (["--set", "pairs.degradation.kernel_sizes=[301]"], "kernel_sizes is [301]"),
        (["--set", "defaults.num_inference_steps=many"], "defaults.num_inference_steps is 'many'; it must be int"),
        (["--set", "task.gammas=[1, 2]"], "task.gammas is [1, 2]; it must have 4 values"),
        (["--seed", "-1"], "loop.seed is -1; it must be 0 to"),
        (["--seed", str(2**63)], f"loop.seed is {2**63}; it must be 0 to"),
        (["--set", "pairs.redraws=-1"], "pairs.redraws is -1; it must be at least 0"),
        (["--set", "task.kind.x=1"], "it must be student, teacher or d3sr"),
        (["--set", "loop.rate=-1"], "loop.rate is -1.0; it must be at least 0"),
        (["--set", "loop.rate=nan"], "loop.rate is nan"),
        (["--set", "loop.rate=inf"], "loop.rate is inf"),
        (["--set", "loop.ema=1.5"], "loop.ema is 1.5; it must be 0 to 1"),
        (["--set", "loop.betas=[0.9, 2.0]"], "loop.betas is 2.0"),
        (["--set", "loop.workers=-1"], "loop.workers is -1"),
        (["--set", "pairs.degradation.scale=2"], "unknown setting pairs.degradation.scale"),
        (["--set", "pairs.degradation.first.jpeg_quality=[90, 30]"], "jpeg_quality is (90, 30)"),
        (["--set", "pairs.degradation.first.jpeg_quality=[30.5, 90.0]"], "has 30.5; it must hold whole numbers"),
        (["--set", "pairs.degradation.first.blur_probability=7"], "blur_probability is 7; it must be 0 to 1"),
        (["--set", "pairs.degradation.kernel_sizes=[4]"], "kernel_sizes is [4]; it must hold odd numbers"),
        (["--set", "pairs.degradation.shape_probabilities=[1, 1]"], "it must be 6 shares that add up to 1"),
        (["--dists", __file__], "--dists has no effect, as the run is of task.kind student"),
        (["--lpips", __file__], "test_cli.py: refused"),
        (["--init", "nowhere/at/all"], "unknown model"),
    ],
)
def test_mistakes_get_a_sentence(arguments, message, preset, folder, tmp_path):
    result = run("train", preset, "--data", folder, "--out", tmp_path / "run", *arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("option", ["--data", "--out", "--pairs", "--init", "--teacher", "--lpips", "--discriminator"])
def test_an_empty_path_is_not_the_current_folder(option, preset, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    others = {"--data": folder, "--out": tmp_path / "run"} | {option: ""}
    result = run("train", preset, *(word for pair in others.items() for word in pair))
    assert result.exit_code == 2
    assert "an empty path" in result.output


def test_weights_that_are_kept_cannot_start_afresh(folder, tmp_path):
    changes = ["--set", "unet.norm_eps=1e-6", "--set", "pairs.crop=64"]
    result = run("train", "--finetune", "--data", folder, "--out", tmp_path / "run", *changes)
    assert result.exit_code == 1
    assert "starts that network afresh" in result.output


def test_wrong_usage(preset, folder, tmp_path):
    assert run("train", preset, "--data", folder).exit_code == 2
    assert run("train", "--data", folder, "--out", tmp_path / "run").exit_code == 2
    assert run("train", preset, "--out", tmp_path / "run").exit_code == 2
    unknown = run("train", "nonesuch", "--data", folder, "--out", tmp_path / "run")
    assert "unknown preset 'nonesuch'; there are compact-addsr" in unknown.output


def test_presets_are_listed_and_valid():
    listing = run("train", "--list").output
    for name in preset_names():
        assert name in listing
        preset = load_preset(name)
        assert preset["description"]
        table = dict(preset["task"])
        kind = {"student": StudentSettings, "teacher": TeacherSettings, "d3sr": D3SRSettings}[table.pop("kind")]
        make_settings(kind, table, "task")
        make_settings(LoopSettings, preset["loop"], "loop")


def test_settings_are_listed_with_their_values_and_meaning():
    lines = run("train", "compact-continue", "--settings", "--set", "loop.batch=3").output.splitlines()
    assert lines[lines.index("loop.batch = 3") + 1] == "    images an update, over all processes."
    grain = lines.index("task.grain = 8.5")
    assert lines[grain + 1].startswith("task.detail = ")  # said once of both
    assert lines[grain + 2].startswith("    weights of fine detail in excess")
    assert "pairs.degradation.first.sigma = [0.2, 3.0]" in lines
    assert {'task.kind = "student"', "defaults.num_inference_steps = 1"} <= set(lines)


def test_a_reader_who_has_seen_enough_is_no_error():
    command = [sys.executable, "-m", "addsr", "train", "compact-continue", "--settings"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.wait()


@pytest.mark.parametrize(
    "kind",
    [*SETTINGS.values(), PairSettings, DegradationSettings, StageSettings, MildSettings, LoopSettings, DefaultSettings],
)
def test_every_setting_has_a_meaning(kind):
    assert attribute_docs(kind).keys() == {field.name for field in fields(kind)}


def test_a_preset_names_its_models(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('extends = "compact-d3sr"\ndiscriminator = "teacher/model"\n')
    assert load_preset(str(own))["discriminator"] == "teacher/model"


@pytest.mark.parametrize("text", ['task = "student"', "extends = 5", "loop = 5"])
def test_a_preset_of_another_shape_is_refused(text, tmp_path):
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(TrainingError, match=r"own\.toml: \w+ is .*; it must be a (table|text)"):
        load_preset(str(tmp_path / "own.toml"))


def test_settings_are_merged_key_by_key():
    config = merged(load_preset("compact-student"), table_assignment("pairs.degradation.first.sigma=[0.1, 1]"))
    assert config["pairs"]["degradation"]["first"]["sigma"] == [0.1, 1]
    assert config["pairs"]["crop"] == 128
    assert table_assignment("task.discriminator=patch") == {"task": {"discriminator": "patch"}}
    with pytest.raises(TrainingError, match=r"pairs\.crop is 'x'"):
        make_settings(PairSettings, {"crop": "x"}, "pairs")


def test_degrade_writes_pairs(folder, tmp_path):
    (folder / "broken.jpg").write_bytes(b"x")
    result = run("degrade", folder, "-o", tmp_path / "pairs", "--count", 2, "--set", "first.sigma=[1.0, 1.5]")
    assert result.exit_code == 0, result.output
    assert "8 pairs" in result.output
    assert f"left out, unreadable: {folder / 'broken.jpg'}" in result.output
    for path in (tmp_path / "pairs" / "lr").iterdir():
        with Image.open(path) as lr, Image.open(tmp_path / "pairs" / "hr" / path.name) as hr:
            assert hr.size == (88, 80)
            assert lr.size == (22, 20)
    head = json.loads((tmp_path / "pairs" / "manifest.jsonl").read_text().splitlines()[0])
    assert head["degradation"]["first"]["sigma"] == [1.0, 1.5]
    assert run("degrade", folder, "-o", tmp_path / "other", "--case", "fog").exit_code == 1
    odd = run("degrade", folder, "-o", tmp_path / "other", "--crop", 33)
    assert "crop is 33; it must be a multiple of 4" in odd.output
    mild = run("degrade", folder, "-o", tmp_path / "mild", "--case", "mild", "--set", "noise_sigma=[2.0, 3.0]")
    assert (mild.exit_code, mild.output.splitlines()[-1]) == (0, f"4 pairs in {tmp_path / 'mild'}")
    assert run("degrade", folder, "-o", tmp_path / "other", "--seed", -1).exit_code == 2
    idle = run("degrade", folder, "-o", tmp_path / "other", "--case", "blur", "--set", "first.sigma=[1.0, 1.5]")
    assert (idle.exit_code, "have ranges" in idle.output) == (2, True)
    assert (
        "unknown setting degradation.third" in run("degrade", folder, "-o", tmp_path / "x", "--set", "third=1").output
    )
    assert (
        "--set 'first.sigma' is not of" in run("degrade", folder, "-o", tmp_path / "x", "--set", "first.sigma").output
    )
