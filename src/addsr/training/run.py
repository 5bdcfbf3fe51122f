"""A training run from its config: data, networks, task and loop put together."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from addsr.data.pairs import Pairs, PairSettings, RealPairs
from addsr.data.photos import Photos
from addsr.errors import TrainingError
from addsr.losses.lpips import SqueezeLPIPS
from addsr.runtime.device import only_emulates
from addsr.training.checkpoint import latest_checkpoint
from addsr.training.config import NETWORKS, make_settings, write_run_config
from addsr.training.export import save_model
from addsr.training.lock import locked
from addsr.training.loop import Loop, LoopSettings
from addsr.training.networks import (
    Networks,
    check_fits,
    faithful_source,
    networks_at_start,
    networks_from,
)
from addsr.training.notices import check_words, left_out, notices
from addsr.training.pca import start_from_components, start_from_condition
from addsr.training.processes import make_accelerator
from addsr.training.sources import Sources
from addsr.training.task import Task
from addsr.training.tasks.building import build_task, task_settings
from addsr.training.tasks.d3sr import D3SRSettings
from addsr.training.validation import HeldOut

COMPONENT_CROPS = 256  # crops whose patches give the principal components
HELD_CROP = 256  # pixels at most
HELD_PAIRS = 16
HELD_STEPS = {"addsr": (1, 4), "ancestral": (10,), "d3sr": (1,)}  # by sampler


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        images: seen in all.
        finished: whether the run's end was reached.
        model: folder of the trained model.
        unreadable, too_small, damaged: names of photos that were left out: by their header, their size, or when decoded.
    """

    images: int
    finished: bool
    model: Path
    unreadable: list[str]
    too_small: list[str]
    damaged: list[str]


def train(
    config: dict[str, Any],
    out: Path,
    *,
    resume: bool = False,
    quiet: bool = True,
    notice: Callable[[str], None] = lambda _text: None,
) -> Outcome:
    """Run, or go on with, the training that `config` describes, in the folder `out`.

    Args:
        config: a preset's tables, and `sources` with the fields of Sources as texts.
        out: folder of the run.
        resume: go on from its last checkpoint.
        quiet: no progress on stderr.
        notice: called in the main process, before the training, with a line for the user about each thing that is left out.

    Raises:
        TrainingError, DataError, ModelError: with one sentence that names the setting or the file.
    """
    with ExitStack() as held:
        return _train(config, out, held, resume=resume, quiet=quiet, notice=notice)


def _train(
    config: dict[str, Any], out: Path, held: ExitStack, *, resume: bool, quiet: bool, notice: Callable[[str], None]
) -> Outcome:
    loop_settings = make_settings(LoopSettings, config.get("loop", {}), "loop")
    pair_settings = make_settings(PairSettings, config.get("pairs", {}), "pairs")
    settings = task_settings(config)
    sources = Sources.from_texts(config.get("sources", {}))
    if latest_checkpoint(out) is not None and not resume:
        raise TrainingError(f"{out}: holds a run already; go on with --resume, or take another folder")
    torch.manual_seed(loop_settings.seed)

    if not resume:
        check_words(config)
    pairs = _pairs(sources, pair_settings, loop_settings, out)
    names_left_out = left_out(pairs.photos, pairs.real)
    lpips = None if sources.lpips is None else SqueezeLPIPS(sources.lpips)

    resumed = resume and latest_checkpoint(out) is not None
    networks = _networks(config, pairs, resumed=resumed)
    faithful = _faithful(config, networks)
    accelerator = make_accelerator()
    if accelerator.is_main_process:
        held.enter_context(locked(out))
    networks.to(accelerator.device)
    if lpips is not None:
        lpips.to(accelerator.device)
    task = build_task(config, settings, networks, sources, lpips, pairs, accelerator.device, resumed=resumed)
    _keep_untrained(task, networks, latest_checkpoint(out) if resumed else None)
    check = _check(pairs, networks, lpips, out)
    loop = Loop(task, pairs, loop_settings, out, accelerator=accelerator, measure=check, quiet=quiet)
    if resume:
        loop.resume()
    if accelerator.is_main_process:  # only a config that fits the checkpoint replaces the one that is there
        lasting = {name: value for name, value in config.get("loop", {}).items() if name != "max_minutes"}
        write_run_config(out, config | {"loop": lasting})
        wordless = networks.encode_text is not None and not isinstance(settings, D3SRSettings) and not _captioned(pairs)
        emulated = loop_settings.precision == "bf16" and only_emulates(torch.bfloat16, accelerator.device)
        for line in notices(config, settings, names_left_out, wordless=wordless, emulated=emulated):
            notice(line)
    finished = loop.run()
    model = out / "model"
    checkpoint = latest_checkpoint(out)
    if accelerator.is_main_process and checkpoint is not None:
        save_model(networks, checkpoint, model, faithful)
    accelerator.wait_for_everyone()
    damaged = sorted(loop.damaged | check.damaged)
    return Outcome(loop.images, finished, model, damaged=damaged, **names_left_out)


def _captioned(pairs: Pairs) -> bool:
    return pairs.photos is not None and pairs.photos.captioned > 0


def _pairs(sources: Sources, settings: PairSettings, loop: LoopSettings, out: Path) -> Pairs:
    """The stream of pairs; photos and real ones share the memory."""
    without = [out] if sources.pairs is None else [out, sources.pairs / "lr"]
    memory = settings.memory // (bool(sources.data) + (sources.pairs is not None) or 1)
    photos = Photos(sources.data, settings.crop, memory, without=without) if sources.data else None
    real = None if sources.pairs is None else RealPairs(sources.pairs, settings.crop, memory)
    return Pairs(photos, settings, loop.seed, loop.images, real=real)


def _check(pairs: Pairs, networks: Networks, lpips: SqueezeLPIPS | None, out: Path) -> HeldOut:
    """What looks at held-out photos at each checkpoint, in crops of a multiple of the training's as far as they go."""
    held = Pairs(pairs.photos, pairs.settings, pairs.seed + 1, HELD_PAIRS, held_out=True, real=pairs.real)
    crop = pairs.settings.crop
    side = min(HELD_CROP, held.shortest_side)
    held.settings = replace(pairs.settings, crop=max(1, side // crop) * crop)
    with torch.no_grad():
        embeds = None if networks.encode_text is None else networks.encode_text([""])
    steps = HELD_STEPS[networks.restorer.sampler.name]
    return HeldOut(held, lpips, networks.restorer, out, steps=steps, prompt_embeds=embeds)


def _networks(config: dict[str, Any], pairs: Pairs, *, resumed: bool) -> Networks:
    """The networks to train; fresh compact ones start from the principal components of the photos' patches."""
    networks = networks_at_start(config)
    restorer = networks.restorer
    if not resumed and config.get("init") is None:
        start_from_components(restorer.vae, (pairs[i]["hr"] for i in range(COMPONENT_CROPS)))
    if not resumed and "unet" in config and restorer.unet.cond_skip is not None:
        start_from_condition(restorer.unet, restorer.vae)
    return networks


def _keep_untrained(task: Task, networks: Networks, checkpoint: Path | None) -> None:
    """Put U-Net, ControlNet and autoencoder into the checkpoints where they do not train too, once: what they were read
    from may change meanwhile. (Encoders of pictures and words are read from the start again.)

    A run from before that was so has none in its checkpoints.
    """
    for name in NETWORKS:
        network = getattr(networks.restorer, name)
        if network is None or name in task.networks:
            continue
        if checkpoint is None or (checkpoint / f"{name}.safetensors").is_file():
            task.networks[name] = network.requires_grad_(False)


def _faithful(config: dict[str, Any], networks: Networks) -> Networks | None:
    """What becomes the model's faithful weights."""
    source = faithful_source(config)
    if source is None:
        return None
    faithful = networks_from(source, faithful=True)
    check_fits(networks, faithful)  # now, not after hours of training
    return faithful
