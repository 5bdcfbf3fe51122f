"""AddSR's discriminator at SD size: heads on the features of a frozen DINO (v1, ViT-S/16), as in ADD and StyleGAN-T."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from addsr.checkpoints.vision import load_released_vit
from addsr.data.draws import Draws
from addsr.discriminators.augment import augment
from addsr.discriminators.head import DiscriminatorHead
from addsr.errors import ModelError
from addsr.image.area import area
from addsr.image.normalize import imagenet_normalized

DEPTHS = (2, 5, 8, 11)  # blocks whose outputs are judged, beside the embeddings


def load_vit(path: Path) -> nn.Module:
    """A ViT (DINO v1) or DINOv2 model from a folder of transformers', or from the released weight file.

    Raises:
        ModelError: if there is none.
    """
    if path.is_file():
        return load_released_vit(path)
    from transformers import AutoModel

    try:
        return AutoModel.from_pretrained(path, local_files_only=True).eval().requires_grad_(False)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: no vision transformer can be loaded from there ({error})") from error


class DinoDiscriminator(nn.Module):
    """Scores pictures at five depths of a frozen vision transformer; only the heads train and are saved.

    Args:
        vit: transformers' ViTModel.
        condition_vit: a second one (DINOv2) whose class token of the LR picture conditions the heads, or None.
    """

    def __init__(self, vit: nn.Module, condition_vit: nn.Module | None = None) -> None:
        super().__init__()
        config: Any = vit.config
        self._frozen = (vit, condition_vit)  # in a tuple: neither trained nor saved
        self.side: int = config.image_size
        width: Any = None if condition_vit is None else condition_vit.config.hidden_size  # pyright: ignore
        count = config.num_hidden_layers
        self.depths = [depth for depth in DEPTHS if depth < count] or [count - 1]
        self.heads = nn.ModuleList(DiscriminatorHead(config.hidden_size, width) for _ in range(len(self.depths) + 1))

    def features(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        """Patch tokens with the class token added to each, (N, C, L), of the judged depths and of the embeddings.

        Args:
            pictures: (N, 3, side, side) in [0, 1].
        """
        vit: Any = self._frozen[0]
        tokens: dict[str, torch.Tensor] = {}

        def keep(name: str) -> Any:
            def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
                tokens[name] = output[0] if isinstance(output, tuple) else output

            return hook

        layers = vit.layers if hasattr(vit, "layers") else vit.encoder.layer  # transformers 5 and 4
        hooks = [layers[depth].register_forward_hook(keep(str(depth))) for depth in self.depths]
        hooks.append(vit.embeddings.register_forward_hook(keep("embeddings")))
        try:
            vit(imagenet_normalized(pictures))
        finally:
            for hook in hooks:
                hook.remove()
        kept = [tokens[name] for name in (*map(str, self.depths), "embeddings")]
        return [(x[:, 1:] + x[:, :1]).transpose(1, 2) for x in kept]

    def forward(self, pictures: torch.Tensor, lr: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Pictures and their LR (N, 3, H, W) in [0, 1] -> logits (N, heads · L).

        Half of the time a random crop of the transformer's side is judged, else the whole picture, shrunk.
        """
        vit, condition_vit = self._frozen
        device = pictures.device
        vit.to(device)
        condition = None
        if condition_vit is not None:
            condition = self.condition(condition_vit.to(device), lr)
        pictures = augment(pictures * 2 - 1, draws) / 2 + 0.5  # zeros are mid-grey
        height, width = pictures.shape[2:]
        if min(height, width) > self.side and draws.shared_uniform() < 0.5:
            top, left = (draws.shared_integers(extent - self.side + 1, 1)[0] for extent in (height, width))
            pictures = pictures[:, :, top : top + self.side, left : left + self.side]
        pictures = area(pictures, (self.side, self.side))
        scores = [head(x, condition) for head, x in zip(self.heads, self.features(pictures), strict=True)]
        return torch.cat(scores, 1)

    @staticmethod
    @torch.no_grad()
    def condition(vit: Any, lr: torch.Tensor) -> torch.Tensor:
        """The class token (N, D) of LR pictures (N, 3, H, W) in [0, 1]."""
        side = vit.config.image_size
        pixels = F.interpolate(lr, (side, side), mode="bilinear", align_corners=False)
        return vit(imagenet_normalized(pixels)).last_hidden_state[:, 0]
