"""RAM and DAPE (SeeSR's degradation-aware prompt extractor): representation tokens of a picture, and the tags it shows.

Recognize Anything (Zhang et al. 2023): a Swin transformer, a projection of its tokens, and a query for each tag that
attends to them. Weights keep the published names in files, whatever transformers calls them inside.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from safetensors.torch import save_file
from torch import nn

from addsr.errors import ModelError
from addsr.weights.building import building
from addsr.weights.fit import put_weights
from addsr.weights.names import ATTENTION_NAMES, published_names, to_ours, to_published
from addsr.weights.reading import read_json, read_tensors

WEIGHTS = "diffusion_pytorch_model.safetensors"
TAG_FILE, THRESHOLD_FILE = "ram_tag_list.txt", "ram_tag_list_threshold.txt"
COMPUTED = ("relative_position_index", "attn_mask")  # buffers that some files have and no weights need


def relative_position_index(window: int) -> torch.Tensor:
    """(window⁴,): for each pair of positions of a window, the row of the bias table for their offset."""
    axis = torch.arange(window)
    row, column = (axis.repeat_interleave(window), axis.repeat(window))
    rows, columns = (x[:, None] - x[None, :] + window - 1 for x in (row, column))
    return (rows * (2 * window - 1) + columns).flatten()


class CrossAttention(nn.Module):
    """BERT's attention of queries to tokens, with its output projection and post-norm residual."""

    def __init__(self, width: int, context_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        parts = {"query": nn.Linear(width, width), "key": nn.Linear(context_width, width)}
        self.self = nn.ModuleDict({**parts, "value": nn.Linear(context_width, width)})
        norm = nn.LayerNorm(width, eps=1e-12)
        self.output = nn.ModuleDict({"dense": nn.Linear(width, width), "LayerNorm": norm})

    def forward(self, queries: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(N, Q, C) and (N, L, D) -> (N, Q, C)."""

        def split(name: str, x: torch.Tensor) -> torch.Tensor:
            return self.self[name](x).unflatten(-1, (self.heads, -1)).transpose(1, 2)

        attended = F.scaled_dot_product_attention(split("query", queries), split("key", tokens), split("value", tokens))
        attended = attended.transpose(1, 2).flatten(2)
        return self.output["LayerNorm"](self.output["dense"](attended) + queries)


class TaggingLayer(nn.Module):
    """A BERT layer that attends to the picture only: cross-attention and feed-forward, each with post-norm residual."""

    def __init__(self, width: int, context_width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.crossattention = CrossAttention(width, context_width, heads)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, hidden)})
        norm = nn.LayerNorm(width, eps=1e-12)
        self.output = nn.ModuleDict({"dense": nn.Linear(hidden, width), "LayerNorm": norm})

    def forward(self, queries: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        queries = self.crossattention(queries, tokens)
        hidden = self.output["dense"](F.gelu(self.intermediate["dense"](queries)))
        return self.output["LayerNorm"](hidden + queries)


class Tagger(ModelMixin, ConfigMixin):
    """RAM with DAPE's adapters merged in. The defaults are the published Swin-L.

    Args:
        image_size, patch_size, embed_dim, depths, num_heads, window_size: of the Swin transformer.
        token_dim: width of the representation tokens.
        tagging_width, tagging_heads, tagging_hidden, tagging_layers: of the tagging head.
        num_tags: tags it knows.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        image_size: int = 384,
        patch_size: int = 4,
        embed_dim: int = 192,
        depths: Sequence[int] = (2, 2, 18, 2),
        num_heads: Sequence[int] = (6, 12, 24, 48),
        window_size: int = 12,
        token_dim: int = 512,
        tagging_width: int = 768,
        tagging_heads: int = 4,
        tagging_hidden: int = 3072,
        tagging_layers: int = 2,
        num_tags: int = 4585,
    ) -> None:
        super().__init__()
        from transformers import SwinConfig, SwinModel  # seconds to import, and the compact model has no tagger

        swin = SwinConfig(
            image_size=image_size,
            patch_size=patch_size,
            embed_dim=embed_dim,
            depths=list(depths),
            num_heads=list(num_heads),
            window_size=window_size,
            drop_path_rate=0.0,
        )
        self.visual_encoder = SwinModel(swin, add_pooling_layer=False)
        self.image_proj = nn.Linear(embed_dim * 2 ** (len(depths) - 1), token_dim)
        self.label_embed = nn.Parameter(torch.zeros(num_tags, token_dim))
        self.wordvec_proj = nn.Linear(token_dim, tagging_width)
        layers = (TaggingLayer(tagging_width, token_dim, tagging_heads, tagging_hidden) for _ in range(tagging_layers))
        self.tagging_head = nn.ModuleDict({"encoder": nn.ModuleDict({"layer": nn.ModuleList(layers)})})
        self.fc = nn.Linear(tagging_width, 1)
        self.tag_names: list[str] = []
        self.thresholds: list[float] = []

    # --- what it computes

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Representation tokens (N, 1 + L, token_dim), the first for the whole picture (`generate_image_embeds`).

        Args:
            pixels: (N, 3, image_size, image_size), ImageNet-normalised.
        """
        tokens = self.visual_encoder(pixels).last_hidden_state
        return self.image_proj(torch.cat([tokens.mean(1, keepdim=True), tokens], 1))

    def tag_logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, num_tags), before the sigmoid, from the representation tokens."""
        queries = self.wordvec_proj(self.label_embed).relu().expand(len(tokens), -1, -1)
        for layer in self.tagging_head["encoder"]["layer"]:  # pyright: ignore[reportIndexIssue, reportGeneralTypeIssues]
            queries = layer(queries, tokens)
        return self.fc(queries)[..., 0]

    def tags(self, tokens: torch.Tensor) -> list[list[str]]:
        """The tags of each picture, in the order of the list: those more probable than their own threshold.

        Raises:
            ModelError: where the tagger came without its tag list.
        """
        if not self.tag_names:
            message = (
                f"the tagger has no {TAG_FILE}: put the release's own, and {THRESHOLD_FILE}, into the model's folder"
            )
            raise ModelError(f"{message} or beside RAM's file, or use no tags (--no-tags)")
        thresholds = torch.tensor(self.thresholds, device=tokens.device)
        shown = self.tag_logits(tokens).float().sigmoid() > thresholds
        return [[name for name, on in zip(self.tag_names, row, strict=True) if on] for row in shown.tolist()]

    # --- files

    def set_tags(self, names: Sequence[str], thresholds: Sequence[float]) -> None:
        """Name the tags.

        Raises:
            ModelError: unless there is a name and a threshold for each.
        """
        count = self.config["num_tags"]
        if len(names) != count or len(thresholds) != count:
            raise ModelError(f"{len(names)} tags and {len(thresholds)} thresholds for a tagger of {count} tags")
        self.tag_names, self.thresholds = list(names), list(thresholds)

    def read_tags(self, folder: Path) -> None:
        """Name the tags from the release's own lists, if `folder` has them."""
        if not (folder / TAG_FILE).is_file():
            return
        read = folder / TAG_FILE
        try:
            names = [name.strip() for name in read.read_text(encoding="utf-8").splitlines() if name.strip()]
            thresholds = [0.68] * len(names)  # RAM's own, where a release has no list
            if (folder / THRESHOLD_FILE).is_file():
                read = folder / THRESHOLD_FILE
                thresholds = [float(word) for word in read.read_text(encoding="utf-8").split()]
            else:
                warnings.warn(
                    f"{folder}: no {THRESHOLD_FILE} beside {TAG_FILE}, so every tag is on from 0.68", stacklevel=2
                )
            read = folder / TAG_FILE
            self.set_tags(names, thresholds)
        except (ModelError, OSError, ValueError) as error:
            raise ModelError(f"{read}: {error}") from error

    def published_keys(self) -> set[str]:
        """Names of the weights that `put_published` takes."""
        return set(self._names())

    def put_published(self, tensors: Mapping[str, torch.Tensor], source: object) -> None:
        """Take merged weights under their published names.

        Raises:
            ModelError: unless every key and shape fits.
        """
        for module in self.modules():  # no file brings these, and transformers built them on the meta device, perhaps
            index = getattr(module, "relative_position_index", None)
            if isinstance(index, torch.Tensor) and index.is_meta:
                module.relative_position_index = relative_position_index(self.config["window_size"]).view(index.shape)
        computed = {key: value for key, value in self.state_dict().items() if key.endswith(COMPUTED)}
        learnt = {name: tensor for name, tensor in tensors.items() if not name.endswith(COMPUTED)}
        names = self._names()
        released = {key: name for name, keys in names.items() for key in keys}
        put_weights(self, to_ours(learnt, names) | computed, source, released)

    def save_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, save_directory: str | Path, **kwargs: Any
    ) -> None:
        """Write config, weights and tag lists; the other arguments of diffusers' are ignored."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.save_config(folder)
        tensors = to_published(self.state_dict(), self._names())
        tensors = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        if self.tag_names:
            (folder / TAG_FILE).write_text("\n".join(self.tag_names) + "\n", encoding="utf-8")
            thresholds = "\n".join(f"{value:g}" for value in self.thresholds)
            (folder / THRESHOLD_FILE).write_text(thresholds + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, pretrained_model_name_or_path: str | Path, **kwargs: Any
    ) -> Self:
        """Read what `save_pretrained` wrote; of the other arguments only `torch_dtype` counts."""
        folder = Path(pretrained_model_name_or_path)
        config = read_json(folder / "config.json")
        with building(f"{folder}: config.json", "tagger"), torch.device("meta"):
            tagger: Any = cls.from_config(config)
        dtype = kwargs.get("torch_dtype")
        dtype = dtype if isinstance(dtype, torch.dtype) else None
        tagger.put_published(read_tensors(folder / WEIGHTS, dtype), folder)
        tagger.read_tags(folder)
        return tagger.eval()

    def _names(self) -> dict[str, list[str]]:
        """Published name -> our keys."""
        keys = [key for key in self.state_dict() if not key.endswith(COMPUTED)]
        swin = [key for key in keys if key.startswith("visual_encoder.")]
        return published_names(swin, _SWIN_NAMES) | {key: [key] for key in keys if key not in set(swin)}


# What transformers (5, and 4 before it) calls the parts of a Swin transformer -> the published names
_SWIN_NAMES = (
    ("visual_encoder.embeddings.patch_embeddings.projection", "visual_encoder.patch_embed.proj"),
    ("visual_encoder.embeddings.norm", "visual_encoder.patch_embed.norm"),
    ("visual_encoder.layernorm", "visual_encoder.norm"),
    ("visual_encoder.encoder.layers.", "visual_encoder.layers."),
    *ATTENTION_NAMES,
    (".attention.relative_position_bias.", ".attn."),
    (".attention.self.", ".attn."),
)
