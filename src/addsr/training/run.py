"""A training run from its config: data, networks, task and loop put together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from addsr.data.pairs import Pairs, PairSettings, RealPairs
from addsr.data.photos import Photos
from addsr.discriminators.diffusion import DiffusionDiscriminator
from addsr.discriminators.dino import DinoDiscriminator, load_vit
from addsr.discriminators.patch import PatchDiscriminator
from addsr.discriminators.squeeze import SqueezeDiscriminator
from addsr.errors import TrainingError
from addsr.losses.dists import DISTS
from addsr.losses.edge_aware import EdgeAware
from addsr.losses.lpips import SqueezeLPIPS
from addsr.models.adapters import add_lora
from addsr.models.diffusion_encoder import DiffusionEncoder
from addsr.training.checkpoint import latest_checkpoint
from addsr.training.config import make_settings, write_run_config
from addsr.training.judge import Judge, judge_from, latent_channels, latent_map_between
from addsr.training.loop import Loop, LoopSettings, make_accelerator
from addsr.training.networks import (
    NETWORKS,
    Networks,
    check_fits,
    faithful_source,
    fresh_unet_like,
    networks_at_start,
    networks_from,
    same_autoencoder,
    save_model,
)
from addsr.training.notices import check_words, left_out, notices
from addsr.training.pca import start_from_components, start_from_condition
from addsr.training.task import Task
from addsr.training.tasks.d3sr import D3SRSettings, D3SRTask
from addsr.training.tasks.student import StudentSettings, StudentTask
from addsr.training.tasks.teacher import TeacherSettings, TeacherTask
from addsr.training.validation import HeldOut

MAP_CROPS = 16  # whose latents say how one autoencoder's become another's
COMPONENT_CROPS = 256  # crops whose patches give the principal components
HELD_CROP = 256  # pixels at most
HELD_PAIRS = 16
HELD_STEPS = {"addsr": (1, 4), "ancestral": (10,), "d3sr": (1,)}  # by sampler


@dataclass(frozen=True)
class Sources:
    """What a run reads.

    Attributes:
        data: folders and tar shards of sharp photos.
        pairs: folder of real pairs, or None.
        lpips: LPIPS-Squeeze weights, or None.
        dino: folder of DINO v1 (transformers), for the discriminator of that name.
        dinov2: folder of DINOv2 (transformers), whose class token of LR conditions that discriminator, or None.
        dists: DISTS weights, or None.
    """

    data: tuple[Path, ...]
    pairs: Path | None = None
    lpips: Path | None = None
    dino: Path | None = None
    dinov2: Path | None = None
    dists: Path | None = None

    @classmethod
    def from_texts(cls, texts: Mapping[str, Any]) -> "Sources":
        """From paths as texts, `data` a list of them."""
        single = {name: Path(text) for name, text in texts.items() if name != "data"}
        return cls(tuple(Path(text) for text in texts.get("data", ())), **single)


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
    loop_settings = make_settings(LoopSettings, config.get("loop", {}), "loop")
    pair_settings = make_settings(PairSettings, config.get("pairs", {}), "pairs")
    sources = Sources.from_texts(config.get("sources", {}))
    if latest_checkpoint(out) is not None and not resume:
        raise TrainingError(f"{out}: holds a run already; go on with --resume, or take another folder")
    torch.manual_seed(loop_settings.seed)

    if not resume:
        check_words(config)
    memory = pair_settings.memory // (bool(sources.data) + (sources.pairs is not None) or 1)
    photos = Photos(sources.data, pair_settings.crop, memory, without=out) if sources.data else None
    real = None if sources.pairs is None else RealPairs(sources.pairs, pair_settings.crop, memory)
    names_left_out = left_out(photos, real)
    pairs = Pairs(photos, pair_settings, loop_settings.seed, loop_settings.images, real=real)
    lpips = None if sources.lpips is None else SqueezeLPIPS(sources.lpips)

    resumed = resume and latest_checkpoint(out) is not None
    networks = _networks(config, pairs, resumed=resumed)
    faithful = _faithful(config, networks)
    accelerator = make_accelerator(loop_settings.precision)
    networks.to(accelerator.device)
    if lpips is not None:
        lpips.to(accelerator.device)
    task = _task(config, networks, sources, lpips, pairs, accelerator.device, resumed=resumed)
    _keep_fresh(task, networks, config)

    held = Pairs(photos, pair_settings, loop_settings.seed + 1, HELD_PAIRS, held_out=True, real=real)
    side = min(HELD_CROP, held.shortest_side)
    held.settings = replace(pair_settings, crop=max(1, side // pair_settings.crop) * pair_settings.crop)
    with torch.no_grad():
        embeds = None if networks.encode_text is None else networks.encode_text([""])
    steps = HELD_STEPS[networks.restorer.sampler]
    check = HeldOut(held, lpips, networks.restorer, out, steps=steps, prompt_embeds=embeds)
    loop = Loop(task, pairs, loop_settings, out, accelerator=accelerator, on_save=check, quiet=quiet)
    if resume:
        loop.resume()
    if accelerator.is_main_process:  # only a config that fits the checkpoint replaces the one that is there
        lasting = {name: value for name, value in config.get("loop", {}).items() if name != "max_minutes"}
        write_run_config(out, config | {"loop": lasting})
        for line in notices(config, names_left_out):
            notice(line)
    finished = loop.run()
    model = out / "model"
    checkpoint = latest_checkpoint(out)
    if accelerator.is_main_process and checkpoint is not None:
        save_model(networks, checkpoint, model, faithful)
    damaged = sorted(loop.damaged | check.damaged)
    return Outcome(loop.images, finished, model, damaged=damaged, **names_left_out)


def _networks(config: dict[str, Any], pairs: Pairs, *, resumed: bool) -> Networks:
    """The networks to train; fresh compact ones start from the principal components of the photos' patches."""
    networks = networks_at_start(config)
    restorer = networks.restorer
    if not resumed and config.get("init") is None:
        start_from_components(restorer.vae, (pairs[i]["hr"] for i in range(COMPONENT_CROPS)))
    if not resumed and "unet" in config and restorer.unet.cond_skip is not None:
        start_from_condition(restorer.unet, restorer.vae)
    return networks


def _keep_fresh(task: Task, networks: Networks, config: dict[str, Any]) -> None:
    """Put networks that started afresh into the checkpoints even where they do not train: no model has them."""
    fresh = NETWORKS if config.get("init") is None else ("unet",) if "unet" in config else ()
    for name in fresh:
        network = getattr(networks.restorer, name)
        if network is not None and name not in task.networks:
            task.networks[name] = network
            task.averaged = (*task.averaged, name)


def _faithful(config: dict[str, Any], networks: Networks) -> Networks | None:
    """What becomes the model's faithful weights."""
    source = faithful_source(config)
    if source is None:
        return None
    faithful = networks_from(source, faithful=True)
    check_fits(networks, faithful)  # now, not after hours of training
    return faithful


def _task(
    config: dict[str, Any],
    networks: Networks,
    sources: Sources,
    lpips: SqueezeLPIPS | None,
    pairs: Pairs,
    device: torch.device,
    *,
    resumed: bool,
) -> Task:
    table = dict(config.get("task", {}))
    kind = table.pop("kind", "student")
    if kind == "teacher":
        return TeacherTask(
            networks.restorer, make_settings(TeacherSettings, table, "task"), encode_text=networks.encode_text
        )
    if kind == "d3sr":
        return _d3sr_task(config, make_settings(D3SRSettings, table, "task"), networks, sources, lpips, pairs)
    if kind != "student":
        raise TrainingError(f"task.kind is {kind!r}; it must be student, teacher or d3sr")
    settings = make_settings(StudentSettings, table, "task")
    if networks.restorer.sampler != "addsr":
        sampler = networks.restorer.sampler
        raise TrainingError(f'a student takes AddSR\'s steps, and this start {sampler}: --set defaults.sampler="addsr"')
    if lpips is None and (settings.lpips or settings.lpips_final):
        raise TrainingError(
            "task.lpips needs the loss network: give --lpips FILE, or --set task.lpips=0 task.lpips_final=0"
        )
    teacher = None
    if settings.distillation:
        teacher = _teacher(config, networks, resumed=resumed)
        teacher.restorer.to(device)
    discriminator = _discriminator(settings, sources, lpips) if settings.adversarial else None
    return StudentTask(
        networks.restorer,
        settings,
        lpips if settings.lpips or settings.lpips_final else None,
        None if teacher is None else teacher.restorer,
        discriminator,
        networks.encode_text,
    )


def _d3sr_task(
    config: dict[str, Any],
    settings: D3SRSettings,
    networks: Networks,
    sources: Sources,
    lpips: SqueezeLPIPS | None,
    pairs: Pairs,
) -> Task:
    generator = networks.restorer
    if generator.sampler != "d3sr":
        raise TrainingError(
            'task.kind d3sr needs defaults.sampler = "d3sr", or --init with Stable Diffusion or a D³SR model'
        )
    distance: Any = None
    if settings.perceptual.endswith("lpips"):
        if lpips is None:
            raise TrainingError(f"task.perceptual {settings.perceptual} needs the loss network: give --lpips FILE")
        distance = lpips
    elif settings.perceptual.endswith("dists"):
        if sources.dists is None:
            raise TrainingError(
                f"task.perceptual {settings.perceptual} needs DISTS: give --dists FILE, or --set task.perceptual=ea-lpips"
            )
        distance = DISTS(sources.dists)
    if settings.perceptual.startswith("ea-"):
        distance = EdgeAware(distance)
    discriminator = _latent_discriminator(config, settings, networks, pairs)
    adapters = add_lora(generator.unet, settings.lora_rank, settings.lora_alpha) if settings.lora_rank else []
    if adapters and generator.fixed_prompt is not None:
        generator.fixed_prompt.requires_grad_(False)
    return D3SRTask(generator, settings, distance, discriminator, adapters)


def _latent_discriminator(
    config: dict[str, Any], settings: D3SRSettings, networks: Networks, pairs: Pairs
) -> nn.Module | None:
    """The discriminator that the settings name; its encoder trains by LoRA where the generator does."""
    if settings.discriminator == "none" or not settings.adversarial:
        return None
    if settings.discriminator == "cnn":
        return PatchDiscriminator()
    generator = networks.restorer
    source = config.get("discriminator") or config.get("init")
    if settings.discriminator == "random":
        unet = fresh_unet_like(generator.unet)
        judge = Judge(DiffusionEncoder.from_unet(unet), generator.vae, generator.alphas_cumprod)
    elif source is None:
        raise TrainingError("task.discriminator diffusion needs a diffusion model: give --discriminator MODEL")
    else:
        judge = judge_from(source)
    latent_map = latent_map_between(generator, judge, (pairs[i]["hr"] for i in range(MAP_CROPS)), str(source))
    encoder = judge.encoder.requires_grad_(True)
    known, given = judge.encoder_channels, latent_channels(generator, latent_map)
    if known != given:
        raise TrainingError(f"{source}: its U-Net takes {known} channels, and latents have {given}")
    if settings.lora_rank and settings.discriminator == "diffusion":
        add_lora(encoder, settings.lora_rank, settings.lora_alpha)
    return DiffusionDiscriminator(encoder, judge.alphas_cumprod, judge.prompt_embeds, settings.highest, latent_map)


def _teacher(config: dict[str, Any], student: Networks, *, resumed: bool) -> Networks:
    """A diffusion model over all timesteps, in the student's latents; a resumed run has yet to read its own autoencoder."""
    if (source := config.get("teacher")) is None:
        message = "task.distillation needs a teacher: give --teacher a model or run trained on all timesteps"
        raise TrainingError(f"{message}, such as addsr train compact-teacher leaves")
    teacher = networks_from(source)
    if not resumed and not same_autoencoder(student.restorer.vae, teacher.restorer.vae):
        raise TrainingError(
            f"{source}: the teacher's autoencoder is not the student's, so their latents differ; "
            f"train it from the same model, or start the student from it: --init {source}"
        )
    return teacher


def _discriminator(settings: StudentSettings, sources: Sources, lpips: SqueezeLPIPS | None) -> nn.Module:
    if settings.discriminator == "patch":
        return PatchDiscriminator()
    if settings.discriminator == "squeeze":
        if lpips is None:
            raise TrainingError("task.discriminator squeeze needs the loss network: give --lpips FILE")
        return SqueezeDiscriminator(lpips)
    if sources.dino is None:
        raise TrainingError("task.discriminator dino needs DINO v1 ViT-S/16: give --dino FOLDER")
    condition = None if sources.dinov2 is None else load_vit(sources.dinov2)
    return DinoDiscriminator(load_vit(sources.dino), condition)
