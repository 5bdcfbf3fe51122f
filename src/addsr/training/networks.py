"""Where a run's networks come from: a preset's tables, a model, or an earlier run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from addsr.checkpoints.faithful import has_faithful
from addsr.checkpoints.hub_cache import local_folder
from addsr.checkpoints.published import is_stable_diffusion, locate, stable_diffusion_files
from addsr.diffusion.defaults import ModelDefaults, misfit
from addsr.diffusion.restorer import Restorer
from addsr.diffusion.samplers.addsr import AddSRSampler
from addsr.diffusion.samplers.by_name import sampler_named
from addsr.diffusion.samplers.d3sr import TIMESTEP, D3SRSampler
from addsr.diffusion.schedule import Schedule, scaled_linear_alphas_cumprod
from addsr.errors import TrainingError
from addsr.loading import find_model, load_describer, load_restorer
from addsr.models.adapters import ALPHA, add_lora, merge_lora_layers
from addsr.models.autoencoder import PixelShuffleAutoencoder
from addsr.models.controlnet import AddSRControlNet
from addsr.models.unet import AddSRUNet
from addsr.prompts.text import PromptEncoder
from addsr.training.captions import CaptionEncoder
from addsr.training.checkpoint import latest_checkpoint, read_weights
from addsr.training.config import NETWORKS, make_settings, read_run_config
from addsr.training.context import TextEncoder
from addsr.weights.building import first_line

_UNBUILDABLE = (TypeError, ValueError, RuntimeError, LookupError, AttributeError)  # of configs that make no network
ROUNDING = 0.005  # of a tensor to bfloat16, relative to its norm; to float16 an eighth of that


@dataclass(frozen=True)
class Networks:
    """A model in training.

    Attributes:
        restorer: the networks and the defaults that belong to the weights.
        encode_prompt: where the model has a text encoder, that.
    """

    restorer: Restorer
    encode_prompt: PromptEncoder | None = None

    @cached_property
    def encode_text(self) -> TextEncoder | None:
        """Captions -> embeddings, where the model has a text encoder."""
        return None if self.encode_prompt is None else CaptionEncoder(self.encode_prompt)

    def to(self, device: torch.device) -> None:
        """Move all networks, those that do not train included."""
        self.restorer.to(device)
        if self.encode_prompt is not None:
            self.encode_prompt.open().to(device)


def fresh_networks(config: dict[str, Any]) -> Networks:
    """Networks of a preset's tables `unet`, `vae` and, if present, `controlnet`, with random weights."""
    for name in ("unet", "vae"):
        if name not in config:
            raise TrainingError(f"the preset has no table [{name}] and no model to start from: give one with --init")
    try:
        unet, vae = AddSRUNet(**_without_none(config["unet"])), PixelShuffleAutoencoder(**config["vae"])
        controlnet = AddSRControlNet(**_without_none(config["controlnet"])) if "controlnet" in config else None
    except _UNBUILDABLE as error:
        raise TrainingError(f"the networks cannot be built from the preset: {first_line(error)}") from error
    _check_channels(unet, vae)
    restorer = Restorer(unet, vae, Schedule(scaled_linear_alphas_cumprod(), "sample"), controlnet=controlnet)
    return Networks(_ready(with_defaults(restorer, config)))


def _check_channels(unet: AddSRUNet, vae: PixelShuffleAutoencoder) -> None:
    channels, factor = vae.config["latent_channels"], vae.config["factor"]
    if not 1 <= channels <= 3 * factor**2:
        raise TrainingError(
            f"vae.latent_channels is {channels}; with a factor of {factor} it must be 1 to {3 * factor**2}"
        )
    for name in ("in_channels", "out_channels"):
        if unet.config[name] != channels:
            raise TrainingError(
                f"unet.{name} is {unet.config[name]}; vae.latent_channels is {channels}, and so it must be"
            )
    if unet.config["conditioning"] == "unshuffle" and unet.config["conditioning_factor"] != factor:
        ours = unet.config["conditioning_factor"]
        raise TrainingError(f"unet.conditioning_factor is {ours}; vae.factor is {factor}, and so it must be")


def networks_at_start(config: dict[str, Any]) -> Networks:
    """What a run of this config starts from: fresh networks, or those of `init`.

    A table `unet` beside `init` changes what it names of that U-Net's config, and this network alone starts afresh, on the
    autoencoder of `init`: a larger teacher, for example.

    Raises:
        TrainingError: if a table names what cannot be built, or another network beside `init`.
        ModelError: if there is no such model.
    """
    if (start := config.get("init")) is None:
        return fresh_networks(config)
    if tables := [name for name in ("vae", "controlnet") if name in config]:
        raise TrainingError(f"table [{tables[0]}] has no effect, as the networks are those of {start}")
    networks = networks_from(start)
    if not torch.allclose(networks.restorer.schedule.alphas_cumprod, scaled_linear_alphas_cumprod(), rtol=1e-5):
        raise TrainingError(
            f"{start}: its noise schedule is not Stable Diffusion's, with which trained models are saved"
        )
    if (changes := config.get("unet")) is not None:
        if "faithful" in config:
            raise TrainingError(
                "table [unet] starts that network afresh, and this preset keeps the weights that it starts from"
            )
        try:
            networks.restorer.unet = fresh_unet_like(networks.restorer.unet, _without_none(changes))
        except _UNBUILDABLE as error:
            raise TrainingError(f"the U-Net cannot be built from the preset: {first_line(error)}") from error
        _ready(networks.restorer)
    with_defaults(networks.restorer, config)
    return networks


def fresh_unet_like(unet: AddSRUNet, changes: Mapping[str, Any] | None = None) -> AddSRUNet:
    """A U-Net of the same config but for `changes`, with random weights.

    Raises:
        TypeError, ValueError: for a config that cannot be built.
    """
    known = AddSRUNet._get_init_keys(AddSRUNet)
    return AddSRUNet(**{name: value for name, value in unet.config.items() if name in known} | dict(changes or {}))


def _without_none(table: dict[str, Any]) -> dict[str, Any]:
    """A network's config with None where a preset says "none", as TOML has no word for it."""
    return {key: None if value == "none" else value for key, value in table.items()}


@dataclass(frozen=True)
class DefaultSettings(ModelDefaults):
    """The table `defaults`: how the model that a run leaves is asked unless one says otherwise. It is trained for that:
    `start_point` and these count in the training too.

    Attributes:
        prediction_type: what the U-Net predicts: `epsilon`, `v_prediction` or `sample`.
        sampler: `addsr`, `ancestral` (SeeSR, teachers) or `d3sr`.
        one_step_timestep: T_L of D³SR's step.
    """

    prediction_type: str = "epsilon"
    sampler: str = AddSRSampler.name
    one_step_timestep: int = TIMESTEP

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if must := misfit(field.name, value, self.sampler):
                raise TrainingError(f"defaults.{field.name} is {value!r}; it must be {must}")

    @staticmethod
    def of(restorer: Restorer) -> "DefaultSettings":
        """Those of a model."""
        sampler = restorer.sampler
        timestep = sampler.one_step_timestep if isinstance(sampler, D3SRSampler) else TIMESTEP
        return DefaultSettings(
            **asdict(restorer.defaults),
            prediction_type=restorer.schedule.prediction_type,
            sampler=sampler.name,
            one_step_timestep=timestep,
        )

    def put_into(self, restorer: Restorer) -> None:
        """Make them those of a model."""
        restorer.schedule = replace(restorer.schedule, prediction_type=self.prediction_type)
        restorer.sampler = sampler_named(self.sampler, self.one_step_timestep)
        restorer.defaults = ModelDefaults(**{field.name: getattr(self, field.name) for field in fields(ModelDefaults)})


def with_defaults(restorer: Restorer, config: dict[str, Any]) -> Restorer:
    """Set what the table `defaults` says on the restorer.

    Raises:
        TrainingError: for a key that it does not have, or a value out of its range.
    """
    own = DefaultSettings.of(restorer)
    chosen = make_settings(DefaultSettings, config.get("defaults", {}), "defaults", own)
    if config.get("task", {}).get("psr") is False:
        chosen = replace(chosen, psr_weight=0.0)  # the student has not been trained under its own pictures
    chosen.put_into(restorer)
    return restorer


def networks_from(source: str | Path, *, faithful: bool = False) -> Networks:
    """Networks of an earlier run (its averages), of a bundled model, or of a model folder, ours or published, in float32.

    Args:
        source: what a user names.
        faithful: take the model's or run's faithful weights, if it has such beside its own.

    Raises:
        ModelError: if there is none.
        TrainingError: if the run has no checkpoint.
    """
    folder = local_folder(source)
    if (folder / "config.json").is_file() and not (folder / "model_index.json").is_file():
        if faithful and (start := faithful_source(read_run_config(folder))) is not None:
            return networks_from(start, faithful=True)
        return _networks_of_run(folder)
    untrained = is_stable_diffusion(folder)  # D³SR's generator before training
    files = stable_diffusion_files(folder) if untrained else locate(find_model(source), None, str(source))
    restorer = load_restorer(files, torch.float32, 1.0 if faithful and has_faithful(files) else 0.0)
    describer = load_describer(files, restorer, torch.float32)
    return Networks(_ready(restorer), None if describer is None else describer.encode_prompt)


def faithful_source(config: dict[str, Any]) -> str | None:
    """What a run's model has its faithful weights from; `init` stands for what the run started from.

    Raises:
        TrainingError: if the preset says anything but a name, or `init` of a run that has none.
    """
    source = config.get("faithful")
    if source is not None and not isinstance(source, str):
        raise TrainingError(f"faithful is {source!r}; it must be init, or the name of a model or run")
    if source == "init" and config.get("init") is None:
        raise TrainingError("faithful is init, and the run starts from no model: give --init")
    return config["init"] if source == "init" else source


def check_fits(networks: Networks, faithful: Networks) -> None:
    """Whether weights can be the faithful set of a model.

    Raises:
        TrainingError: if they are of other networks.
    """
    for name in NETWORKS:
        ours, theirs = (_shapes(getattr(one.restorer, name)) for one in (networks, faithful))
        if ours != theirs:
            raise TrainingError(f"the faithful weights do not fit the trained {name}: they are of another network")


def _shapes(network: nn.Module | None) -> dict[str, torch.Size]:
    return {} if network is None else {key: value.shape for key, value in network.state_dict().items()}


def _networks_of_run(run: Path) -> Networks:
    config, checkpoint = read_run_config(run), latest_checkpoint(run)
    if checkpoint is None:
        raise TrainingError(f"{run}: the run has no checkpoint yet")
    networks = networks_at_start(config)
    rank = config.get("task", {}).get("lora_rank", 0)
    if rank:
        add_lora(networks.restorer.unet, rank, config["task"].get("lora_alpha", ALPHA))
    put_averages(networks.restorer, checkpoint)
    if rank:
        merge_lora_layers(networks.restorer.unet)
    return networks


def same_autoencoder(vae: nn.Module, other: nn.Module) -> bool:
    """Whether latents of the one are latents of the other: the same weights of what encodes, but for rounding."""
    ours, theirs = _encoding(vae), _encoding(other)
    if ours.keys() != theirs.keys() or _scaling(vae) != _scaling(other):
        return False
    return all(
        value.shape == theirs[key].shape
        and (value.float() - theirs[key].to(value.device).float()).norm() <= ROUNDING * value.float().norm() + 1e-6
        for key, value in ours.items()
    )


def _encoding(vae: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value for key, value in vae.state_dict().items() if key.startswith(("encoder.", "quant_conv."))}


def _scaling(vae: Any) -> float:
    return vae.config["scaling_factor"]


def put_averages(restorer: Restorer, checkpoint: Path) -> None:
    """Load the averaged weights of a checkpoint, or those that do not train, into the networks that it has.

    Raises:
        TrainingError: if they are damaged, or of another network.
    """
    for name in NETWORKS:
        averaged = (checkpoint / f"{name}_ema.safetensors").is_file()  # else it does not train
        path = checkpoint / f"{name}{'_ema' * averaged}.safetensors"
        if path.is_file():
            try:
                getattr(restorer, name).load_state_dict(read_weights(checkpoint, name, averaged=averaged))
            except (RuntimeError, SafetensorError) as error:
                raise TrainingError(f"{path}: damaged, or of another network ({str(error).splitlines()[0]})") from error


def _ready(restorer: Restorer) -> Restorer:
    for network in restorer.networks:
        network.eval().requires_grad_(False)  # no layer behaves otherwise in training mode
    restorer.to(memory_format=torch.channels_last)
    return restorer
