"""python -m addsr.training: train the compact model's parts, and export them as a model folder."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import load_file
from torch import nn

from addsr.data.pairs import Pairs
from addsr.data.photos import Photos
from addsr.training.config import load_preset, loop_settings, make_settings, make_unet, make_vae, pair_settings
from addsr.training.export import export
from addsr.training.loop import Loop
from addsr.training.pca import start_from_components, start_from_condition
from addsr.training.student import StudentSettings, StudentTask
from addsr.training.validation import HeldOut

COMPONENT_CROPS = 256  # crops whose patches give the principal components

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command()
def train(
    preset: Annotated[str, typer.Argument(help="A preset's name, or a TOML file.")],
    photos: Annotated[list[Path], typer.Option(help="Folder or tar shard of sharp photos; may be repeated.")],
    lpips: Annotated[Path, typer.Option(help="LPIPS-Squeeze weights (safetensors).")],
    out: Annotated[Path, typer.Option(help="Folder for stats.jsonl and weights.")],
    init: Annotated[
        Path | None, typer.Option(help="Folder of an earlier run whose averaged weights to start from.")
    ] = None,
    images: Annotated[int | None, typer.Option(help="Length of the run, instead of the preset's.")] = None,
    minutes: Annotated[float | None, typer.Option(help="The run ends, fully annealed, within this time.")] = None,
    seed: Annotated[int, typer.Option()] = 0,
    compiled: Annotated[bool, typer.Option("--compile", help="Fuse the networks by torch.compile.")] = False,
) -> None:
    """Train one part of the compact model."""
    torch.manual_seed(seed)
    config = load_preset(preset)
    settings = loop_settings(config, images=images, minutes=minutes, seed=seed)
    vae, unet = make_vae(config), make_unet(config)
    pairs = Pairs(Photos(photos), pair_settings(config), seed, settings.images)
    if init is None:
        start_from_components(vae, (pairs[i]["hr"] for i in range(COMPONENT_CROPS)))
        start_from_condition(unet, vae)
    for name, network in (("vae", vae), ("unet", unet)):
        if init is not None:
            network.load_state_dict(load_file(init / f"{name}_ema.safetensors"))
        network.eval()  # no layer behaves otherwise in training mode
        nn.Module.to(network, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (its stubs lack this)
    chosen = make_settings(StudentSettings, config["settings"] | {"compile": compiled})
    task = StudentTask(unet, vae, chosen, lpips)
    held_pairs = replace(pair_settings(config), crop=256)
    held = Pairs(pairs.photos, held_pairs, seed + 1, settings.images, held_out=True)
    check = HeldOut(held, task.lpips, chosen.prediction_type, out)
    Loop(task, pairs, settings, out, check).run()


@app.command("export")
def export_run(
    preset: Annotated[str, typer.Argument(help="The preset of the run.")],
    run: Annotated[Path, typer.Argument(help="Folder of the run.")],
    out: Annotated[Path, typer.Argument(help="Folder of the model.")],
) -> None:
    """Write the averaged weights of a run as a model folder that `addsr upscale --model` takes."""
    export(load_preset(preset), run, out)


if __name__ == "__main__":
    app()
