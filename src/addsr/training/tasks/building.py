"""A run's task from its config: which it is, and the teacher, discriminator and loss networks beside the trained ones."""

from typing import Any

import torch
from torch import nn

from addsr.data.pairs import Pairs
from addsr.diffusion.samplers.addsr import AddSRSampler
from addsr.diffusion.samplers.ancestral import AncestralSampler
from addsr.diffusion.samplers.d3sr import D3SRSampler
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
from addsr.training.config import make_settings
from addsr.training.judge import Judge, judge_from, latent_channels, latent_map_between
from addsr.training.networks import Networks, fresh_unet_like, networks_from, same_autoencoder
from addsr.training.sources import Sources
from addsr.training.task import Task
from addsr.training.tasks.d3sr import D3SRSettings, D3SRTask
from addsr.training.tasks.student import StudentSettings, StudentTask
from addsr.training.tasks.teacher import TeacherSettings, TeacherTask

_GIVE_TEACHER = "give --teacher a model or run trained on all timesteps, such as addsr train compact-teacher leaves"
_NO_TEACHER = f"task.distillation needs a teacher: {_GIVE_TEACHER}"
MAP_CROPS = 16  # whose latents say how one autoencoder's become another's
TaskSettings = StudentSettings | TeacherSettings | D3SRSettings
SETTINGS: dict[str, type[TaskSettings]] = {"student": StudentSettings, "teacher": TeacherSettings, "d3sr": D3SRSettings}


def task_settings(config: dict[str, Any]) -> TaskSettings:
    """The table `task`, whose `kind` says what the others mean.

    Raises:
        TrainingError: for an unknown kind or setting.
    """
    table = dict(config.get("task", {}))
    kind = table.pop("kind", "student")
    if not isinstance(kind, str) or kind not in SETTINGS:
        raise TrainingError(f"task.kind is {kind!r}; it must be student, teacher or d3sr")
    return make_settings(SETTINGS[kind], table, "task")


def build_task(
    config: dict[str, Any],
    settings: TaskSettings,
    networks: Networks,
    sources: Sources,
    lpips: SqueezeLPIPS | None,
    pairs: Pairs,
    device: torch.device,
    *,
    resumed: bool,
) -> Task:
    """The task of a run's config, with its teacher or discriminator.

    Args:
        config: names, where given, `teacher`, `discriminator` and `init`.
        settings: which task it is, and how; see `task_settings`.
        networks: to train, on `device`.
        sources: the run's files.
        lpips: the loss network, where there is one.
        pairs: whose photos fit one autoencoder's latents to another's.
        device: of the teacher.
        resumed: the networks' weights are yet to be read.

    Raises:
        TrainingError: for what the task needs and the run does not have.
    """
    wants_text = networks.restorer.unet.config["cross_attention_dim"] is not None
    if wants_text and networks.encode_text is None and not isinstance(settings, D3SRSettings):
        raise TrainingError(
            "the networks attend to text, and the start brings no text encoder: start from SeeSR, AddSR or the compact model"
        )
    if isinstance(settings, TeacherSettings):
        return TeacherTask(networks.restorer, settings, encode_text=networks.encode_text)
    if isinstance(settings, D3SRSettings):
        return _d3sr_task(config, settings, networks, sources, lpips, pairs, device)
    if not isinstance(sampler := networks.restorer.sampler, AddSRSampler):
        message = f"a student takes AddSR's steps, and this start {sampler.name}"
        raise TrainingError(f'{message}: --set defaults.sampler="addsr"')
    if lpips is None and (settings.lpips or settings.lpips_final):
        message = "task.lpips needs the loss network: give --lpips (see --help), or "
        message += "--set task.lpips=0 --set task.lpips_final=0"
        if settings.distillation and config.get("teacher") is None:
            message += f"; {_NO_TEACHER}"  # in one sentence what has to be given
        raise TrainingError(message)
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
    device: torch.device,
) -> Task:
    generator = networks.restorer
    if not isinstance(generator.sampler, D3SRSampler):
        raise TrainingError(
            'task.kind d3sr needs defaults.sampler = "d3sr", or --init with Stable Diffusion or a D³SR model'
        )
    distance: Any = None
    if settings.perceptual.endswith("lpips"):
        if lpips is None:
            raise TrainingError(
                f"task.perceptual {settings.perceptual} needs the loss network: give --lpips (see --help)"
            )
        distance = lpips
    elif settings.perceptual.endswith("dists"):
        if sources.dists is None:
            raise TrainingError(
                f"task.perceptual {settings.perceptual} needs DISTS: give --dists (see --help), "
                "or --set task.perceptual=ea-lpips"
            )
        distance = DISTS(sources.dists).to(device)
    if settings.perceptual.startswith("ea-"):
        distance = EdgeAware(distance)
    discriminator = _latent_discriminator(config, settings, networks, pairs)
    adapters = add_lora(generator.unet, settings.lora_rank, settings.lora_alpha) if settings.lora_rank else []
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
        prompt = None if generator.fixed_prompt is None else generator.fixed_prompt(1).detach().clone()
        judge = Judge(DiffusionEncoder.from_unet(unet), generator.vae, generator.schedule, prompt)
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
    return DiffusionDiscriminator(
        encoder, judge.schedule.alphas_cumprod, judge.prompt_embeds, settings.highest, latent_map
    )


def _teacher(config: dict[str, Any], student: Networks, *, resumed: bool) -> Networks:
    """A diffusion model over all timesteps, in the student's latents; a resumed run has yet to read its own autoencoder."""
    if (source := config.get("teacher")) is None:
        raise TrainingError(_NO_TEACHER)
    teacher = networks_from(source)
    sampler = teacher.restorer.sampler
    if not isinstance(sampler, AncestralSampler):  # asked at any timestep but its few, it would answer noise
        message = f"{source}: a model of the sampler {sampler.name} knows few timesteps, a teacher all"
        raise TrainingError(f"{message}; {_GIVE_TEACHER}")
    if not resumed and not same_autoencoder(student.restorer.vae, teacher.restorer.vae):
        raise TrainingError(
            f"{source}: the teacher's autoencoder is not the student's, so their latents differ; "
            f"train it from the same model, or start the student from it: --init {source}"
        )
    teacher.restorer.vae = student.restorer.vae  # once in memory; with a teacher it never trains
    return teacher


def _discriminator(settings: StudentSettings, sources: Sources, lpips: SqueezeLPIPS | None) -> nn.Module:
    if settings.discriminator == "patch":
        return PatchDiscriminator()
    if settings.discriminator == "squeeze":
        if lpips is None:
            raise TrainingError("task.discriminator squeeze needs the loss network: give --lpips (see --help)")
        return SqueezeDiscriminator(lpips)
    if sources.dino is None:
        raise TrainingError("task.discriminator dino needs DINO v1 ViT-S/16: give --dino FOLDER")
    condition = None if sources.dinov2 is None else load_vit(sources.dinov2)
    return DinoDiscriminator(load_vit(sources.dino), condition)
