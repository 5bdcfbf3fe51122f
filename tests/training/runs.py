"""A tiny run, in this process or as a program: python -m tests.training.runs PHOTOS LPIPS OUT [LOOP SETTINGS AS JSON]."""

import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from addsr.cli.app import app
from addsr.data.pairs import Pairs, PairSettings
from addsr.data.photos import Photos
from addsr.diffusion.defaults import ModelDefaults
from addsr.diffusion.restorer import Restorer
from addsr.diffusion.schedule import Schedule, scaled_linear_alphas_cumprod
from addsr.discriminators.patch import PatchDiscriminator
from addsr.losses.lpips import SqueezeLPIPS
from addsr.training.loop import Loop, LoopSettings
from addsr.training.processes import make_accelerator
from addsr.training.tasks.student import StudentSettings, StudentTask
from tests.tiny import tiny_unet, tiny_vae

EVERYTHING = {
    "refine": 0.5,
    "refine_from": 0.0,
    "distillation": 1.0,
    "adversarial": 0.1,
    "trainable": ["unet.*"],  # the teacher reads the autoencoder's latents
}


def tiny_restorer(seed: int = 0) -> Restorer:
    torch.manual_seed(seed)
    return Restorer(
        tiny_unet(),
        tiny_vae(),
        Schedule(scaled_linear_alphas_cumprod(), "sample"),
        defaults=ModelDefaults(start_point="noise"),
    )


def student_task(loss_network: Path, **settings: object) -> StudentTask:
    """With all losses on, unless changed."""
    student = tiny_restorer()
    chosen = StudentSettings(**{**EVERYTHING, **settings})
    torch.manual_seed(1)
    discriminator = PatchDiscriminator(8) if chosen.adversarial else None
    teacher = tiny_restorer(2) if chosen.distillation else None
    return StudentTask(student, chosen, SqueezeLPIPS(loss_network), teacher, discriminator)


def make_loop(photos: Path, lpips: Path, out: Path, task: dict[str, object], **loop: object) -> Loop:
    settings = LoopSettings(**{"images": 24, "batch": 4, "report": 8, "save": 8, "workers": 0, **loop})
    pairs = Pairs(Photos([photos]), PairSettings(crop=64, holdout=4), settings.seed, settings.images)
    return Loop(student_task(lpips, **task), pairs, settings, out, accelerator=make_accelerator())


def train_tiny(*arguments: object, **loop: object) -> None:
    """addsr train on crops of 64 pixels, in batches of 2, without workers."""
    settings = {"batch": 2, "report": 2, "workers": 0, "precision": "fp32", **loop}
    changes = ["pairs.crop=64", *(f"loop.{name}={value}" for name, value in settings.items())]
    words = [*map(str, arguments), *(word for change in changes for word in ("--set", change))]
    result = CliRunner().invoke(app, ["train", *words])
    assert result.exit_code == 0, (result.output, result.exception)


if __name__ == "__main__":
    torch.set_num_threads(1)
    photos, lpips, out = map(Path, sys.argv[1:4])
    options = json.loads(sys.argv[4]) if len(sys.argv) > 4 else {}
    loop = make_loop(photos, lpips, out, options.pop("task", {}), **options)
    loop.resume()
    loop.run()
    if dump := os.environ.get("DUMP"):  # what this process holds at the end
        assert loop.accelerator.num_processes == int(os.environ["WORLD_SIZE"])
        held = {f"{n}.{k}": v for n, network in loop.task.networks.items() for k, v in network.state_dict().items()}
        save_file({name: value.contiguous() for name, value in held.items()}, dump)
