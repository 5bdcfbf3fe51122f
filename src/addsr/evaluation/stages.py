"""The evaluations that one restoration is made of, each as something to run: to be counted without weights, or timed."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from addsr.diffusion.restorer import Restorer, Runs
from addsr.image.normalize import ENCODER_SIDE
from addsr.runtime.offload import Offload

TEXT_TOKENS, IMAGE_TOKENS = 77, 145  # of CLIP, and of RAM at ENCODER_SIDE


@dataclass(frozen=True)
class Model:
    """Everything that computes: a restorer, and the text encoder beside it."""

    restorer: Restorer
    text_encoder: Any = None

    @property
    def is_meta(self) -> bool:
        """Whether it has shapes only."""
        return self.restorer.placement.is_meta

    @property
    def networks(self) -> list[Any]:
        """All of them."""
        return [*self.restorer.networks, *([] if self.text_encoder is None else [self.text_encoder])]

    def to(self, target: torch.device | torch.dtype) -> "Model":
        """Moved there, or cast to it."""
        self.restorer.to(target)
        if self.text_encoder is not None:
            self.text_encoder.to(target)
        return self

    def on_meta(self) -> "Model":
        """The same networks without weights."""

        def bare(network: Any) -> Any:
            if network is None or not hasattr(network, "from_config"):
                return None
            with torch.device("meta"):
                return nn.Module.to(type(network).from_config(network.config), self.restorer.placement.dtype).eval()

        restorer, text_encoder = copy(self.restorer), self.text_encoder
        for name in ("unet", "vae", "controlnet", "image_encoder", "fixed_prompt"):
            setattr(restorer, name, bare(getattr(restorer, name)))
        restorer.offload = Offload()
        if text_encoder is not None:
            with torch.device("meta"):
                text_encoder = type(text_encoder)(text_encoder.config).eval()
            text_encoder.to(self.restorer.placement.dtype)
        return Model(restorer, text_encoder)


@dataclass(frozen=True)
class Evaluation:
    """How often a network runs in one restoration, and one run of it.

    Attributes:
        runs, run: see above.
        of_photo: once for the whole photo, however many tiles it is cut into.
    """

    runs: int
    run: Callable[[], object]
    of_photo: bool = False


def evaluations(
    model: Model, height: int, width: int, runs: Runs, guided: bool, device: torch.device
) -> dict[str, Evaluation]:
    """By name, in the order of their first run.

    Args:
        model: on `device`.
        height, width: of the picture, or of one tile, in output pixels.
        runs: of the restoration.
        guided: whether it is under classifier-free guidance.
        device: where to run; `meta` to count only.
    """
    restorer, text_encoder = model.restorer, model.text_encoder
    unet, factor = restorer.unet, restorer.vae_scale_factor
    like = unet.conv_in.weight

    def filled(*shape: int) -> torch.Tensor:
        return torch.full(shape, 0.5, dtype=like.dtype, device=device)

    picture = filled(1, 3, height, width)
    latents = filled(1, unet.config["in_channels"], height // factor, width // factor)
    text, image = unet.config["cross_attention_dim"], unet.config["use_image_cross_attention"]
    context = {
        "encoder_hidden_states": None if text is None else filled(1, TEXT_TOKENS, text),
        "image_encoder_hidden_states": filled(1, IMAGE_TOKENS, unet.config["image_cross_attention_dim"])
        if image
        else None,
    }
    denoisings = runs.steps * (2 if guided else 1)
    found: dict[str, Evaluation] = {}
    if text_encoder is not None:
        ids = torch.zeros(1, TEXT_TOKENS, dtype=torch.long, device=device)
        found["text"] = Evaluation(2 if guided else 1, lambda: text_encoder(ids), of_photo=True)
    if restorer.image_encoder is not None:
        encoder: Any = restorer.image_encoder
        found["tokens"] = Evaluation(runs.decodings, lambda: encoder(filled(1, 3, ENCODER_SIDE, ENCODER_SIDE)), True)
        if hasattr(encoder, "tag_logits"):
            channels = encoder.config["token_dim"]
            found["tags"] = Evaluation(1, lambda: encoder.tag_logits(filled(1, IMAGE_TOKENS, channels)), of_photo=True)
    if runs.encodings:
        found["encode"] = Evaluation(runs.encodings, lambda: restorer.vae.encode(picture).latent_dist.mode())
    residuals: dict[str, Any] = {}
    if restorer.controlnet is not None:
        controlnet: Any = restorer.controlnet
        found["controlnet"] = Evaluation(denoisings, lambda: controlnet(latents, 999, picture, **context))
        residuals = _residuals(controlnet, latents, filled)
    own = {"controlnet_cond": picture} if unet.config["conditioning"] is not None else {}
    found["unet"] = Evaluation(denoisings, lambda: unet(latents, 999, **context, **residuals, **own))
    found["decode"] = Evaluation(runs.decodings, lambda: restorer.decode_latents(latents))
    return found


def _residuals(controlnet: Any, latents: torch.Tensor, filled: Callable[..., torch.Tensor]) -> dict[str, Any]:
    """What a ControlNet gives the U-Net for such latents."""
    levels = [0]  # of each skip: conv_in's, then each block's layers and its downsampling
    for level, block in enumerate(controlnet.down_blocks):
        levels += [level] * len(block.resnets) + [level + 1] * (block.downsamplers is not None)
    shapes = [
        (1, conv.in_channels, *(-(-side // 2**level) for side in latents.shape[2:]))
        for conv, level in zip(controlnet.controlnet_down_blocks, levels, strict=True)
    ]
    return {
        "down_block_additional_residuals": [filled(*shape) for shape in shapes],
        "mid_block_additional_residual": filled(*shapes[-1]),
    }
