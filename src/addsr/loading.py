"""From a model's name, folder or hub id to an Upscaler."""

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from addsr.bundled import bundled_models
from addsr.checkpoints.faithful import has_faithful, move_towards_faithful
from addsr.checkpoints.hashes import weights_sha256
from addsr.checkpoints.hub_cache import cached_snapshot
from addsr.checkpoints.published import (
    Beside,
    ModelFiles,
    check_holds_model,
    is_own,
    is_published,
    is_stable_diffusion,
    locate,
    locate_tagger,
)
from addsr.dial import Dial
from addsr.diffusion.restorer import Restorer
from addsr.diffusion.samplers.d3sr import D3SRSampler
from addsr.diffusion.schedule import schedule_from_config
from addsr.errors import ModelError
from addsr.options import RestoreOptions
from addsr.prompts.describe import Describer
from addsr.prompts.tagging import Tagging
from addsr.runtime.device import choose_device, choose_precision, only_emulates
from addsr.runtime.offload import Offload
from addsr.runtime.widening import compute_in_float32
from addsr.upscaler import Upscaler
from addsr.weights.building import building, first_line
from addsr.weights.fit import put_weights
from addsr.weights.lora_file import merge_adapters, read_timestep
from addsr.weights.reading import read_json, read_tensors

SMALL_KEPT = 4  # models of other fidelities that stay open, where they are small


def find_model(name: str | Path, beside: Beside | None = None) -> Path:
    """The folder of a model: a bundled one's name, a folder, or the id of a hub repository that is already in the cache.

    Args:
        name: what the user calls it; a Path is a folder, whatever its name.
        beside: with adapters, Stable Diffusion's own folder is a model too.

    Raises:
        ModelError: if there is none.
    """
    bundled = bundled_models()
    if isinstance(name, str) and name in bundled:
        return bundled[name]
    folder = Path(name)
    if folder.is_dir():
        if beside is None or beside.lora is None or not is_stable_diffusion(folder):
            check_holds_model(folder)
        return folder
    if str(name).count("/") == 1:
        cached = cached_snapshot(str(name))
        if cached is None:
            raise ModelError(f"{name}: neither a folder nor in the local hub cache (nothing is downloaded here)")
        return cached
    from addsr.training.config import preset_names  # for this message alone

    if str(name) in preset_names():
        known = f"bundled: {', '.join(bundled) or 'none'}"
        raise ModelError(f"{name} is a training preset (docs/training.md), whose result is a folder; {known}")
    raise ModelError(f"unknown model {str(name)!r}; bundled: {', '.join(bundled) or 'none'}; or give a folder")


def load_restorer(files: ModelFiles, dtype: torch.dtype | None = torch.float32, fidelity: float = 0.0) -> Restorer:
    """The networks of a model, on the CPU.

    It does without `AddSRPipeline.from_pretrained`, as importing diffusers' pipelines takes longer than restoring a photo.

    Args:
        files: of the model.
        dtype: precision; None: that of the files.
        fidelity: where between the model's own weights and its faithful ones, see `addsr.checkpoints.faithful`.

    Raises:
        ModelError: if a file is missing, damaged or of another kind, or there are no faithful weights to move towards.
    """
    if fidelity:
        restorer = load_restorer(files, torch.float32)
        move_towards_faithful(restorer, files, fidelity)
        if dtype is not None:
            restorer.to(dtype)
        return restorer
    try:
        schedule = schedule_from_config(read_json(files.parts["scheduler"] / "scheduler_config.json"))
        restorer = Restorer(
            _network(files, "unet", dtype),
            _network(files, "vae", dtype),
            schedule,
            files.sampler,
            files.defaults,
            controlnet=_network(files, "controlnet", dtype),
            image_encoder=_network(files, "image_encoder", dtype),
            fixed_prompt=_network(files, "fixed_prompt", dtype),
        )
    except (ValueError, TypeError) as error:
        raise ModelError(f"{files.folder}: the model cannot be loaded ({first_line(error)})") from error
    if (lora := files.parts.get("lora")) is not None:
        merge_adapters(restorer.unet, lora)
        if (timestep := read_timestep(lora)) is not None:
            restorer.sampler = D3SRSampler(timestep)
    return restorer


def _empty_prompt(files: ModelFiles, dtype: torch.dtype | None) -> nn.Module:
    """Stable Diffusion's embedding of the empty prompt: the only words that D³SR's U-Net is told."""
    from addsr.checkpoints.stable_diffusion import load_text_encoder, load_tokenizer
    from addsr.models.fixed_prompt import FixedPrompt
    from addsr.prompts.text import PromptEncoder

    text_encoder = load_text_encoder(files.parts["text_encoder"], torch.float32)
    embeds = PromptEncoder(text_encoder, load_tokenizer(files.parts["tokenizer"]))([""])
    prompt = FixedPrompt(*embeds.shape[1:])
    with torch.no_grad():
        prompt.embeds.copy_(embeds)
    nn.Module.to(prompt, dtype or torch.float32)
    return prompt.eval()


def _network(files: ModelFiles, part: str, dtype: torch.dtype | None) -> Any:
    """One component; only classes that are named here are ever imported."""
    from addsr.checkpoints import stable_diffusion

    if part == "image_encoder" and "ram" in files.parts:
        return _released_tagger(files.folder, files.parts["ram"], files.parts["dape"], dtype)
    if part == "fixed_prompt" and isinstance(files.sampler, D3SRSampler) and "text_encoder" in files.parts:
        return _empty_prompt(files, dtype)
    if part not in files.parts:
        return None
    folder = files.parts[part]
    published = {"unet": "AddSRUNet", "controlnet": "AddSRControlNet", "vae": "AutoencoderKL"}
    kind = files.classes.get(part) or published[part]
    if kind == "AddSRUNet":
        return stable_diffusion.load_unet(folder, dtype, files.overlay)
    if kind == "AddSRControlNet":
        return stable_diffusion.load_controlnet(folder, dtype)
    if kind == "AutoencoderKL":
        return stable_diffusion.load_vae(folder, dtype)
    if kind == "PixelShuffleAutoencoder":
        from addsr.models.autoencoder import PixelShuffleAutoencoder

        config = read_json(folder / "config.json")
        with building(f"{folder}: config.json", kind), torch.device("meta"):
            vae: Any = PixelShuffleAutoencoder.from_config(config)
        put_weights(vae, read_tensors(folder / stable_diffusion.NETWORK_FILES[0], dtype), folder)
        return vae.eval()
    if kind == "FixedPrompt":
        from addsr.models.fixed_prompt import FixedPrompt

        tensors = read_tensors(folder / stable_diffusion.NETWORK_FILES[0], dtype)
        shape = tensors["embeds"].shape if "embeds" in tensors else (1, 0, 0)
        prompt = FixedPrompt(*shape[-2:])
        put_weights(prompt, tensors, folder)
        return prompt.eval()
    if kind == "Tagger":
        from addsr.models.tagger import Tagger

        tagger = Tagger.from_pretrained(folder, torch_dtype=dtype)
        if not tagger.tag_names:
            tagger.read_tags(files.folder)
        return tagger
    known = (*published.values(), "PixelShuffleAutoencoder", "Tagger", "FixedPrompt")
    raise ModelError(f"{files.folder}: {part} is a {kind}; expected one of {', '.join(known)}")


def _released_tagger(folder: Path, ram: Path, dape: Path, dtype: torch.dtype | None) -> Any:
    """RAM and DAPE of a published model; the tag lists may lie in its folder, or beside that."""
    from addsr.checkpoints.ram import load_released_tagger

    return load_released_tagger(ram, dape, dtype, (folder, folder.absolute().parent))


def load_describer(
    files: ModelFiles, restorer: Restorer, dtype: torch.dtype | None, *, keep: bool = True
) -> Describer | None:
    """What tells the networks of a photo in words and tokens; None for a model without text and image encoder.

    Args:
        files, dtype: as for `load_restorer`.
        restorer: the model's.
        keep: keep the text encoder in memory, instead of opening it for each new prompt.
    """
    from addsr.checkpoints.stable_diffusion import load_text_encoder, load_tokenizer

    if "text_encoder" not in files.parts or isinstance(files.sampler, D3SRSampler):
        return None if restorer.image_encoder is None else Describer(restorer)
    from addsr.prompts.text import PromptEncoder

    if "tokenizer" not in files.parts:
        raise ModelError(f"{files.folder}: the model has a text encoder and no tokenizer")
    tokenizer = load_tokenizer(files.parts["tokenizer"])
    open_encoder = partial(load_text_encoder, files.parts["text_encoder"], dtype)
    text_encoder = open_encoder()  # in any case: a damaged one must be known now
    return Describer(restorer, PromptEncoder(text_encoder if keep else open_encoder, tokenizer))


def load_tagger(
    name: str | Path, device: str = "auto", precision: str = "auto", beside: Beside | None = None
) -> Tagging:
    """The tagger of a model alone.

    Raises:
        ModelError: if the model has none, or it is damaged.
    """
    folder, target = find_model(name), choose_device(device)
    dtype = choose_precision(precision, target)
    if is_published(folder) and not is_own(folder):
        tagger: Any = _released_tagger(folder, *locate_tagger(folder, beside or Beside()), dtype)
    else:
        tagger = _network(locate(folder, beside), "image_encoder", dtype)
    if tagger is None or not hasattr(tagger, "tags"):
        raise ModelError(f"{name}: this model recognises no tags; the published SD-2-size ones do")
    nn.Module.to(tagger, target)
    if only_emulates(dtype, target):
        compute_in_float32(tagger)
    return Tagging(tagger)


def load(
    name: str | Path = "compact",
    device: str = "auto",
    precision: str = "auto",
    *,
    beside: Beside | None = None,
    offload: bool = False,
    compile: bool = False,
    fidelity: float = 0.0,
) -> Upscaler:
    """Load a model, ready to restore photos. Nothing is downloaded.

    Args:
        name: a bundled model; a folder, ours or as AddSR and SeeSR publish theirs; or a hub id in the local cache.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: `auto`, `fp32`, `bf16` or `fp16`; auto takes bf16 only where the hardware computes it. On an x86 CPU
            that does not compute what is asked for, weights are kept in it, at half of the memory, and float32 computes.
        beside: where the parts of a published model lie that are not in its folder.
        offload: keep on the device only the networks in use.
        compile: fuse the U-Net and ControlNet by torch.compile: minutes at the start, faster afterwards.
        fidelity: from 0, most detailed, to 1, most faithful, for a model with a set of weights for either. It can be
            chosen for each photo too, which opens the model once more.

    Raises:
        ModelError: if the model is unknown or damaged, or has one set of weights only and fidelity is not 0.
        AddSRError: if the device is not there.
    """
    RestoreOptions(fidelity=fidelity)  # checks its range
    folder = find_model(name, beside)
    target = choose_device(device)
    dtype = choose_precision(precision, target)
    files = locate(folder, beside, str(name))
    open_at = partial(_open, files, str(name), target, dtype, offload=offload, compile=compile)
    upscaler = open_at(fidelity)
    if has_faithful(files):
        upscaler.dial = Dial(open_at, SMALL_KEPT if upscaler.restorer.is_local else 1)
    return upscaler


def _open(
    files: ModelFiles,
    name: str,
    target: torch.device,
    dtype: torch.dtype,
    fidelity: float,
    *,
    offload: bool,
    compile: bool,
) -> Upscaler:
    """See load."""
    restorer = load_restorer(files, dtype, fidelity)
    describer = load_describer(files, restorer, dtype, keep=target.type != "cpu" or dtype != torch.float32)
    words = None if describer is None else describer.encode_prompt
    restorer.lay_out(target)
    if widened := only_emulates(dtype, target):
        for network in [*restorer.networks, *([] if words is None else [words.open()])]:
            compute_in_float32(network)
    if not compile:  # which would unroll the blocks of rows
        restorer.choose_attention(target)
    if offload and target.type == "cpu":
        warnings.warn("offload has no effect, as the model computes on a CPU", stacklevel=2)
    if dtype == torch.float16 and target.type == "cpu" and not widened:
        warnings.warn("fp16 is computed very slowly on a CPU; fp32 or bf16 is faster", stacklevel=2)
    if offload and target.type != "cpu":
        denoiser = [network for network in (restorer.unet, restorer.controlnet) if network is not None]
        groups = {"vae": [restorer.vae], "denoiser": denoiser}
        groups |= {"image_encoder": [restorer.image_encoder]} if restorer.image_encoder is not None else {}
        groups |= {"text_encoder": [words.open()]} if words is not None else {}
        restorer.offload = Offload(groups, target)
    else:
        restorer.to(target)
        if words is not None and target.type != "cpu":
            words.open().to(target)
    if compile:
        for network in (restorer.unet, restorer.controlnet):
            if network is not None:
                network.compile(dynamic=False)
    return Upscaler(restorer, name, lambda: weights_sha256(files), describer, fidelity)
