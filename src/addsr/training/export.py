"""How a run's networks become a model."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from addsr.checkpoints.faithful import FAITHFUL_FILE
from addsr.errors import TrainingError
from addsr.models.adapters import has_lora, merge_lora_layers, save_lora
from addsr.pipelines.of_restorer import pipeline_of, save_pipeline
from addsr.runtime.complete_folder import complete_folder, settle_files
from addsr.training.config import NETWORKS
from addsr.training.networks import Networks, put_averages
from addsr.weights.building import first_line


def save_model(networks: Networks, checkpoint: Path, out: Path, faithful: Networks | None = None) -> None:
    """Write the averages of a checkpoint as a model folder in float16, which `addsr upscale --model` takes.

    The networks keep those weights: this is the end of a run. The folder appears, or is replaced, when it is complete.

    Args:
        networks: of the run.
        checkpoint: its last one.
        out: the folder.
        faithful: networks that fit, whose weights become the model's faithful set (in float16 from here on).

    Raises:
        TrainingError: if it cannot be written; the checkpoint stays.
    """
    put_averages(networks.restorer, checkpoint)
    try:
        with complete_folder(out, replace=True) as part:
            _write_model(networks, part, faithful)
    except (OSError, SafetensorError) as error:
        message = f"{out}: the model cannot be written ({first_line(error)})"
        raise TrainingError(f"{message}; {checkpoint.name} is there: go on with --resume to write it") from error


def _write_model(networks: Networks, part: Path, faithful: Networks | None) -> None:
    from diffusers import DDPMScheduler

    restorer, words = networks.restorer, networks.encode_prompt
    if has_lora(restorer.unet):  # small enough to share, and merged into the model
        save_lora(restorer.unet, part / "lora.safetensors", restorer.timesteps(1)[0])
        merge_lora_layers(restorer.unet)
    parts = {name: getattr(restorer, name) for name in NETWORKS if getattr(restorer, name) is not None}
    for name, network in parts.items():
        nn.Module.to(network, torch.float16)
        if faithful is not None:
            _save_faithful(network, getattr(faithful.restorer, name), part / name)
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
    kept = {name: getattr(restorer.schedule, name) for name in ("prediction_type", "timestep_spacing", "steps_offset")}
    if (clip := restorer.schedule.clip_sample_range) is not None:
        kept |= {"clip_sample": True, "clip_sample_range": clip}
    scheduler = DDPMScheduler.from_config(betas | kept)
    text_encoder, tokenizer = (None, None) if words is None else (words.open(), words.tokenizer)
    for network in (restorer.image_encoder, text_encoder):  # those that only describe
        if network is not None:
            nn.Module.to(network, torch.float16)
    save_pipeline(pipeline_of(restorer, scheduler, text_encoder, tokenizer), part)
    settle_files(part)


def _save_faithful(network: nn.Module, faithful: nn.Module, folder: Path) -> None:
    """Write the faithful weights beside a network's own, unless they are the same."""
    theirs = nn.Module.to(faithful, torch.float16).state_dict()
    if any(not torch.equal(value, theirs[key].to(value.device)) for key, value in network.state_dict().items()):
        folder.mkdir()
        save_file({key: value.contiguous() for key, value in theirs.items()}, folder / FAITHFUL_FILE)
