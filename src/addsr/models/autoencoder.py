"""The compact model's autoencoder: factor-4 latents of many channels, and no convolution at full resolution."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from addsr.models.normalization import use_channel_norm


@dataclass(frozen=True)
class PointDistribution:
    """A posterior of no spread, with the interface of diffusers' (whose module takes seconds to import)."""

    latents: torch.Tensor

    def mode(self) -> torch.Tensor:
        """The latents."""
        return self.latents


@dataclass(frozen=True)
class Encoded:
    """As diffusers' AutoencoderKLOutput."""

    latent_dist: PointDistribution


@dataclass(frozen=True)
class Decoded:
    """As diffusers' DecoderOutput."""

    sample: torch.Tensor


class ResidualStack(nn.Module):
    """A linear function of each position, plus conv_in, residual blocks and conv_out (zero at first) at its resolution."""

    def __init__(self, in_channels: int, width: int, layers: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Conv2d(in_channels, out_channels, 1)
        self.conv_in = nn.Conv2d(in_channels, width, 3, padding=1)
        self.resnets = nn.ModuleList(
            ResnetBlock2D(in_channels=width, temb_channels=None, groups=1, eps=1e-5)  # pyright: ignore[reportArgumentType]
            for _ in range(layers)
        )
        self.conv_out = nn.Conv2d(width, out_channels, 3, padding=1)
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        linear = self.linear(hidden_states)
        hidden_states = self.conv_in(hidden_states)
        for resnet in self.resnets:
            hidden_states = resnet(hidden_states, None)
        return linear + self.conv_out(hidden_states)


class PixelShuffleAutoencoder(ModelMixin, ConfigMixin):
    """Deterministic autoencoder that works at latent resolution, at the end perhaps at half of the picture's, and reaches
    pixels by PixelShuffle.

    It has the interface of diffusers' AutoencoderKL as far as the pipelines use it.

    Args:
        latent_channels: channels of the latents.
        factor: pixels a latent, along a side.
        encoder_width, encoder_layers, decoder_width, decoder_layers: of the two residual stacks.
        fine_width, fine_layers: of a third one, at half of the picture's resolution, which sees across the seams between
            the cells that the decoder writes, each of one latent; without a width there is none. (`vae.fine.*` where what
            trains is chosen by name.)
        scaling_factor: multiplies encoded latents to bring them near unit variance, as in AutoencoderKL.

    Raises:
        ValueError: if there is such a stack and the factor is odd.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        factor: int = 4,
        encoder_width: int = 64,
        encoder_layers: int = 2,
        decoder_width: int = 64,
        decoder_layers: int = 4,
        fine_width: int = 0,
        fine_layers: int = 1,
        scaling_factor: float = 1.0,
    ) -> None:
        super().__init__()
        if fine_width and factor % 2:
            raise ValueError(f"factor is {factor}; with a fine_width it must be even")
        pixels, features = 3 * factor**2, fine_width * (factor // 2) ** 2
        self.encoder = ResidualStack(pixels, encoder_width, encoder_layers, latent_channels)
        self.decoder = ResidualStack(latent_channels, decoder_width, decoder_layers, pixels + features)
        self.fine = ResidualStack(12 + fine_width, fine_width, fine_layers, 12) if fine_width else None
        if self.fine is not None:  # at first the decoder's picture, as it is
            nn.init.eye_(self.fine.linear.weight[:, :, 0, 0])
            nn.init.zeros_(self.fine.linear.bias)  # pyright: ignore[reportArgumentType]
        use_channel_norm(self)

    @torch.no_grad()
    def set_linear(self, mean: torch.Tensor, basis: torch.Tensor, scale: torch.Tensor) -> None:
        """Start from a linear autoencoder, as a principal component analysis of patches gives it.

        Args:
            mean: (3·f², ) of pixel-unshuffled pictures in [-1, 1].
            basis: (3·f², C) orthonormal columns.
            scale: (C,) standard deviations along them: the latents get unit variance.
        """
        encode = (basis / scale).T
        self.encoder.linear.weight.copy_(encode[:, :, None, None])
        self.encoder.linear.bias.copy_(-encode @ mean)  # pyright: ignore[reportOptionalMemberAccess]
        self.decoder.linear.weight[: len(mean)].copy_((basis * scale)[:, :, None, None])
        self.decoder.linear.bias[: len(mean)].copy_(mean)  # pyright: ignore[reportOptionalSubscript]

    def encode(self, x: torch.Tensor) -> Encoded:
        """(N, 3, f·H, f·W) in [-1, 1] -> unscaled latents (N, C, H, W), as a distribution of no spread."""
        self._arrive()
        latents = self.encoder(F.pixel_unshuffle(x, self.config["factor"]))
        return Encoded(PointDistribution(latents))

    def decode(self, z: torch.Tensor) -> Decoded:
        """Unscaled latents (N, C, H, W) -> picture (N, 3, f·H, f·W), about [-1, 1]."""
        self._arrive()
        factor = self.config["factor"]
        if self.fine is None:
            return Decoded(F.pixel_shuffle(self.decoder(z), factor))
        pixels = 3 * factor**2
        cells, features = self.decoder(z).tensor_split([pixels], dim=1)
        picture = F.pixel_unshuffle(F.pixel_shuffle(cells, factor), 2)
        fine = self.fine(torch.cat([picture, F.pixel_shuffle(features, factor // 2)], 1))
        return Decoded(F.pixel_shuffle(fine, 2))

    def _arrive(self) -> None:
        """Let diffusers' offloading bring the weights, as its own autoencoders do: it waits for `forward` else."""
        if (hook := getattr(self, "_hf_hook", None)) is not None:
            hook.pre_forward(self)
