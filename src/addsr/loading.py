"""From a model's name, folder or hub id to an Upscaler."""

import hashlib
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from addsr.bundled import bundled_models
from addsr.diffusion.restorer import Restorer
from addsr.diffusion.schedule import schedule_from_config
from addsr.errors import ModelError
from addsr.runtime.device import choose_device, choose_precision
from addsr.upscaler import Upscaler

_NETWORKS = {
    "AddSRUNet": "addsr.models.unet",
    "AddSRControlNet": "addsr.models.controlnet",
    "PixelShuffleAutoencoder": "addsr.models.autoencoder",
    "AutoencoderKL": "diffusers",
}


def find_model(name: str | Path) -> Path:
    """The folder of a model: a bundled one's name, a folder, or the id of a hub repository that is already in the cache.

    Raises:
        ModelError: if there is none.
    """
    bundled = bundled_models()
    if str(name) in bundled:
        return bundled[str(name)]
    folder = Path(name)
    if folder.is_dir():
        if (folder / "model_index.json").is_file():
            return folder
        raise ModelError(f"{folder}: no model_index.json in the folder, so it holds no model")
    parts = str(name).split("/")
    if len(parts) == 2 and all(parts):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(str(name), local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError):
            raise ModelError(
                f"{name}: neither a folder nor in the local hub cache (nothing is downloaded here)"
            ) from None
    raise ModelError(f"unknown model {str(name)!r}; bundled: {', '.join(bundled) or 'none'}; or give a folder")


def weights_sha256(folder: Path) -> str:
    """SHA-256 over the names and contents of all safetensors files of a model."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def load_restorer(folder: Path) -> Restorer:
    """The networks of a folder written by AddSRPipeline.save_pretrained, in float32 on the CPU.

    It does without `AddSRPipeline.from_pretrained`, as importing diffusers' pipelines takes longer than restoring a photo.

    Raises:
        ModelError: if a file is missing, damaged or of another kind.
    """
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        if index["_class_name"] != "AddSRPipeline":
            raise ModelError(f"{folder}: holds a {index['_class_name']}, not an AddSRPipeline")
        schedule = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
        alphas_cumprod, prediction_type = schedule_from_config(schedule)
        if missing := [name for name in ("unet", "vae") if not index.get(name) or index[name][1] is None]:
            raise ModelError(f"{folder}: model_index.json names no {missing[0]}")
        if extra := [name for name in ("text_encoder", "image_encoder") if index.get(name) and index[name][1]]:
            raise ModelError(f"{folder}: the model has a {extra[0]}, which AddSRPipeline runs but Upscaler not yet")
        networks = {name: _load_network(folder, name, index.get(name)) for name in ("unet", "vae", "controlnet")}
        defaults = {name: index[name] for name in ("start_point", "psr_weight", "num_inference_steps", "color_fix")}
        return Restorer(
            networks.pop("unet"), networks.pop("vae"), alphas_cumprod, prediction_type, **networks, **defaults
        )
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{folder}: the model cannot be loaded ({lines[0]})") from error


def _load_network(folder: Path, name: str, entry: list[str | None] | None) -> Any:
    """A component by its entry in model_index.json: [module, class]; only classes of this table are ever imported."""
    if not entry or entry[1] is None:
        return None
    if entry[1] not in _NETWORKS:
        raise ModelError(f"{folder}: {name} is a {entry[1]}; expected one of {', '.join(_NETWORKS)}")
    network_class = getattr(import_module(_NETWORKS[entry[1]]), entry[1])
    config = json.loads((folder / name / "config.json").read_text(encoding="utf-8"))
    network = network_class.from_config(config)
    network.load_state_dict(load_file(folder / name / "diffusion_pytorch_model.safetensors"))
    return network.eval()


def load(name: str | Path = "compact", device: str = "auto", precision: str = "auto") -> Upscaler:
    """Load a model, ready to restore photos. Nothing is downloaded.

    Args:
        name: a bundled model, a folder, or the id of a hub repository in the local cache.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: `auto`, `fp32`, `bf16` or `fp16`; auto takes bf16 only where the hardware computes it.

    Raises:
        ModelError: if the model is unknown or damaged.
        AddSRError: if the device is not there.
    """
    folder = find_model(name)
    target = choose_device(device)
    dtype = choose_precision(precision, target)
    restorer = load_restorer(folder)
    restorer.to(target, dtype, memory_format=torch.channels_last)
    return Upscaler(restorer, str(name), weights_sha256(folder))
