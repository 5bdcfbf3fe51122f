"""What a model costs: parameters by component, multiply-accumulates, seconds and memory by stage of one restoration."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from addsr.bundled import bundled_models
from addsr.diffusion.defaults import ModelDefaults
from addsr.diffusion.guidance import is_guided
from addsr.diffusion.restorer import Restorer
from addsr.diffusion.samplers.addsr import AddSRSampler
from addsr.diffusion.samplers.ancestral import AncestralSampler
from addsr.diffusion.samplers.d3sr import D3SRSampler
from addsr.diffusion.schedule import Schedule, scaled_linear_alphas_cumprod
from addsr.errors import AddSRError
from addsr.evaluation.stages import Model, evaluations
from addsr.runtime.cost import measure
from addsr.runtime.device import choose_precision, only_emulates
from addsr.runtime.widening import compute_in_float32

CONFIGURED = ("addsr", "seesr", "d3sr")  # Stable-Diffusion-2-size models that need no weights to be counted


@dataclass
class Stage:
    """One kind of evaluation in a restoration: how often it runs, what once costs (see Cost); seconds are of all runs."""

    runs: int
    macs: int
    attention_macs: int
    peak_bytes: int
    seconds: float | None = None


@dataclass
class Profile:
    """A model's costs.

    Attributes:
        parameters: by component.
        stages: by name, in the order of their first run.
        weight_bytes: of all components.
        precision: of the weights: `float32`, `bfloat16` or `float16`.
    """

    name: str
    size: int
    steps: int
    parameters: dict[str, int]
    stages: dict[str, Stage] = field(default_factory=dict)
    weight_bytes: int = 0
    precision: str = "float32"

    @property
    def macs(self) -> int:
        """Of one restoration: convolutions and linear layers, as the papers count."""
        return sum(stage.runs * stage.macs for stage in self.stages.values())

    @property
    def attention_macs(self) -> int:
        """Of one restoration: the products of queries, keys and values."""
        return sum(stage.runs * stage.attention_macs for stage in self.stages.values())

    @property
    def seconds(self) -> float | None:
        """Of one restoration, where it was timed."""
        times = [stage.seconds for stage in self.stages.values()]
        return None if None in times else sum(t for t in times if t is not None)

    @property
    def peak_bytes(self) -> int:
        """Weights and the largest stage's activations."""
        return self.weight_bytes + max(stage.peak_bytes for stage in self.stages.values())

    def row(self) -> dict[str, Any]:
        """For programs."""
        stages = {
            name: {"runs": s.runs, "macs": s.runs * s.macs, "seconds": s.seconds} for name, s in self.stages.items()
        }
        return {
            "model": self.name,
            "size": self.size,
            "steps": self.steps,
            "parameters": {**self.parameters, "all": sum(self.parameters.values())},
            "macs": {**{name: stage["macs"] for name, stage in stages.items()}, "all": self.macs},
            "attention_macs": self.attention_macs,
            "stages": stages,
            "seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
            "precision": self.precision,
        }


def profile(
    name: str,
    size: int = 512,
    steps: int | None = None,
    *,
    timed: bool = False,
    device: str = "cpu",
    precision: str = "fp32",
) -> Profile:
    """Profile a model for a picture of size × size.

    Args:
        name: a bundled model, a folder, one of CONFIGURED, or a training preset that brings its networks.
        size: pixels along a side of the result.
        steps: None for the model's own number.
        timed: run each stage; a model without weights gets random ones for that.
        device: to time on.
        precision: of the weights and, where the device does it, of the computation: `fp32`, `bf16`, `fp16`, or `auto` for
            what suits the device.

    Raises:
        AddSRError: if there is no such model, or it cannot do a picture of that size or so many steps.
    """
    dtype = choose_precision(precision, torch.device(device))
    model = _model(name, dtype)
    bare = model if model.is_meta else model.on_meta()
    restorer = bare.restorer
    if size < 1 or size % restorer.size_multiple:
        raise AddSRError(f"size is {size}; for {name} it must be a multiple of {restorer.size_multiple}")
    try:
        asked = restorer.defaults if steps is None else replace(restorer.defaults, num_inference_steps=steps)
        runs = restorer.runs(asked)
    except ValueError as error:
        raise AddSRError(str(error)) from None
    vae = restorer.vae
    parts = {
        "unet": [restorer.unet],
        "controlnet": [restorer.controlnet],
        "vae encoder": [vae.encoder, getattr(vae, "quant_conv", None)],
        "vae decoder": [vae.decoder, getattr(vae, "post_quant_conv", None), getattr(vae, "fine", None)],
        "image encoder": [restorer.image_encoder],
        "text encoder": [bare.text_encoder],
        "fixed prompt": [restorer.fixed_prompt],
    }
    counted = {part: [network for network in networks if network is not None] for part, networks in parts.items()}
    weights = {part: [p for network in networks for p in network.parameters()] for part, networks in counted.items()}
    result = Profile(
        name, size, runs.steps, {part: sum(p.numel() for p in own) for part, own in weights.items() if own}
    )
    result.precision = str(dtype).removeprefix("torch.")
    result.weight_bytes = sum(p.nbytes for own in weights.values() for p in own)
    guided = is_guided(restorer.defaults.guidance_scale)
    if widened := only_emulates(dtype, torch.device(device)):
        bare.to(torch.float32)  # which activations are, beside weights that stay as they are
    for stage, evaluation in evaluations(bare, size, size, runs, guided, torch.device("meta")).items():
        cost = measure(evaluation.run)
        result.stages[stage] = Stage(evaluation.runs, cost.macs, cost.attention_macs, cost.peak_bytes)
    if timed:
        target = torch.device(device)
        real = with_random_weights(model.to(dtype), target) if model.is_meta else model.to(target)
        real.restorer.lay_out(target)
        if widened:
            for network in real.networks:
                compute_in_float32(network)
        real.restorer.choose_attention(target)
        for stage, evaluation in evaluations(real, size, size, runs, guided, target).items():
            result.stages[stage].seconds = evaluation.runs * _seconds(evaluation.run, target)
    return result


def _model(name: str, dtype: torch.dtype) -> Model:
    """By what the user calls it."""
    from addsr.training.config import load_preset, preset_names

    if name in CONFIGURED:
        return configured(name).to(dtype)
    if name in preset_names() and name not in bundled_models() and not Path(name).is_dir():
        preset = load_preset(name)
        if "init" in preset or "unet" in preset:  # the model that it trains, of which only weights are to come
            from addsr.training.networks import networks_at_start

            return Model(networks_at_start(preset).restorer).to(dtype)
    return _loaded(name, dtype)


def _loaded(name: str, dtype: torch.dtype) -> Model:
    from addsr.checkpoints.published import locate
    from addsr.loading import find_model, load_describer, load_restorer

    files = locate(find_model(name), None, name)
    restorer = load_restorer(files, dtype)
    describer = load_describer(files, restorer, dtype)
    words = None if describer is None else describer.encode_prompt
    return Model(restorer, None if words is None else words.open())


def configured(name: str) -> Model:
    """A Stable-Diffusion-2-size model on the meta device."""
    from addsr.checkpoints.published import DEFAULTS
    from addsr.models.controlnet import AddSRControlNet
    from addsr.models.fixed_prompt import FixedPrompt
    from addsr.models.stable_diffusion_2 import autoencoder, text_encoder
    from addsr.models.tagger import Tagger
    from addsr.models.unet import AddSRUNet

    schedule = Schedule(scaled_linear_alphas_cumprod())
    if name == "d3sr":
        with torch.device("meta"):
            unet = AddSRUNet(use_image_cross_attention=False).eval()
            return Model(
                Restorer(
                    unet,
                    autoencoder(),
                    schedule,
                    D3SRSampler(),
                    ModelDefaults(num_inference_steps=1),
                    fixed_prompt=FixedPrompt(),
                )
            )
    with torch.device("meta"):
        restorer = Restorer(
            AddSRUNet().eval(),
            autoencoder(),
            schedule,
            AddSRSampler() if name == "addsr" else AncestralSampler(),
            DEFAULTS[name],
            controlnet=AddSRControlNet().eval(),
            image_encoder=Tagger().eval(),
        )
        return Model(restorer, text_encoder())


def with_random_weights(model: Model, device: torch.device) -> Model:
    """The time does not depend on the weights, as long as no number is subnormal or infinite."""
    with torch.no_grad():
        for network in model.networks:
            network.to_empty(device=device)
            for parameter in network.parameters():
                parameter.normal_(std=0.5 / max(parameter[0].numel(), 1) ** 0.5 if parameter.ndim > 1 else 0.1)
            for buffer in network.buffers():
                buffer.zero_()
    return model


@torch.no_grad()
def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """The faster of two runs."""
    times = []
    for _ in range(2):
        begun = time.perf_counter()
        run()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        times.append(time.perf_counter() - begun)
    return min(times)
