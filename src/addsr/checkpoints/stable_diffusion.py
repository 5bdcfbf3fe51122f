"""Stable Diffusion's networks from a diffusers folder: configs checked, older key names understood, no code run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from addsr.errors import ModelError
from addsr.models.controlnet import AddSRControlNet
from addsr.models.sdxl_encoder import SDXLEncoder
from addsr.models.unet import AddSRUNet
from addsr.weights.building import building
from addsr.weights.fit import put_weights
from addsr.weights.reading import read_json, read_tensors

NETWORK_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
NETWORK_PICKLES = ("diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.bin")
TEXT_FILES = ("model.safetensors", "model.fp16.safetensors", "pytorch_model.bin", "pytorch_model.fp16.bin")

# Settings of diffusers' networks that ours do not have, and the values that they always have in Stable Diffusion 2.
# `null` everywhere means the default.
_FIXED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu",),
    "addition_embed_type": (),
    "center_input_sample": (False,),
    "class_embed_type": (),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "controlnet_conditioning_channel_order": ("rgb",),
    "downsample_padding": (1,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "global_pool_conditions": (False,),
    "mid_block_scale_factor": (1,),
    "num_attention_heads": (),
    "only_cross_attention": (False,),
    "resnet_time_scale_shift": ("default",),
    "time_embedding_type": ("positional",),
    "transformer_layers_per_block": (1,),
}
_TEXT_SETTINGS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "projection_dim",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
# The autoencoder's attention in files older than diffusers 0.18
_OLD_ATTENTION = ((".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0."))


def find_weights(folder: Path, names: Sequence[str]) -> Path:
    """The first of `names` in `folder`.

    Raises:
        ModelError: if there is none.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ModelError(f"{folder}: no weights in the folder; looked for {', '.join(names)}")


def load_conditional_network(
    network_class: Any, folder: Path, dtype: torch.dtype | None, overlay: Path | None = None
) -> Any:
    """A U-Net or ControlNet of ours from a published folder.

    Args:
        network_class: AddSRUNet or AddSRControlNet.
        folder: with config.json and weights (a pickle is read without running its code).
        dtype: of the result; None keeps the file's.
        overlay: a second folder whose `image_attentions` are added (SD-Turbo's U-Net has none).

    Raises:
        ModelError: if a setting is not Stable Diffusion 2's, or a key or shape does not fit.
    """
    config = read_json(folder / "config.json")
    files = (*NETWORK_FILES, *NETWORK_PICKLES)
    tensors = read_tensors(find_weights(folder, files), dtype)
    if overlay is not None:
        more = read_tensors(find_weights(overlay, files), dtype)
        tensors |= {key: value for key, value in more.items() if "image_attentions" in key}
    for name, allowed in _FIXED.items():
        value = config.get(name)
        if value is not None and value not in allowed:
            raise ModelError(f"{folder}: {name} is {value!r}, which no Stable Diffusion 2 network has")
    known = network_class._get_init_keys(network_class) - {"self"}
    settings = {name: value for name, value in config.items() if name in known}
    settings["use_image_cross_attention"] = any("image_attentions" in key for key in tensors)
    if config.get("use_image_cross_attention") and not settings["use_image_cross_attention"]:
        raise ModelError(
            f"{folder}: its config has representation attentions (image_attentions), its weights have none"
        )
    if network_class is AddSRUNet and config.get("_class_name") != "AddSRUNet":
        settings["conditioning"] = None  # a ControlNet brings it
    with building(f"{folder}: config.json", network_class.__name__), torch.device("meta"):
        network = network_class(**settings)
    put_weights(network, tensors, folder)
    return network.eval()


def load_unet(folder: Path, dtype: torch.dtype | None = None, overlay: Path | None = None) -> AddSRUNet:
    """See load_conditional_network."""
    return load_conditional_network(AddSRUNet, folder, dtype, overlay)


def load_controlnet(folder: Path, dtype: torch.dtype | None = None) -> AddSRControlNet:
    """See load_conditional_network."""
    return load_conditional_network(AddSRControlNet, folder, dtype)


def load_sdxl_encoder(folder: Path, dtype: torch.dtype | None = None) -> SDXLEncoder:
    """The first half of SDXL's U-Net from diffusers' folder `unet`; the other half's weights are not kept."""
    from diffusers import UNet2DConditionModel

    config = read_json(folder / "config.json")
    with building(f"{folder}: config.json", "UNet2DConditionModel"), torch.device("meta"):
        encoder = SDXLEncoder(UNet2DConditionModel.from_config(config))
    wanted = encoder.state_dict().keys()
    rest = ("up_blocks.", "conv_norm_out.", "conv_out.")
    tensors = read_tensors(find_weights(folder, (*NETWORK_FILES, *NETWORK_PICKLES)), dtype)
    tensors = {key: value for key, value in tensors.items() if key in wanted or not key.startswith(rest)}
    put_weights(encoder, tensors, folder)
    return encoder.eval()


def load_vae(folder: Path, dtype: torch.dtype | None = None) -> Any:
    """Diffusers' AutoencoderKL, from current or older key names."""
    from diffusers import AutoencoderKL

    config = read_json(folder / "config.json")
    tensors = current_vae_names(read_tensors(find_weights(folder, (*NETWORK_FILES, *NETWORK_PICKLES)), dtype))
    with building(f"{folder}: config.json", "AutoencoderKL"), torch.device("meta"):
        vae = AutoencoderKL.from_config(config)
    put_weights(vae, tensors, folder)
    return vae.eval()  # pyright: ignore


def current_vae_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of an AutoencoderKL under diffusers' current names; its attention may be stored as 1×1 convolutions."""
    renamed = {}
    for key, value in tensors.items():
        if ".attentions." in key:
            for old, new in _OLD_ATTENTION:
                key = key.replace(old, new)
            if value.ndim == 4 and value.shape[2:] == (1, 1):
                value = value[:, :, 0, 0]
        renamed[key] = value
    return renamed


def load_text_encoder(folder: Path, dtype: torch.dtype | None = None) -> Any:
    """Transformers' CLIPTextModel, whatever prefix its version gives the keys."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = read_json(folder / "config.json")
    tensors = read_tensors(find_weights(folder, TEXT_FILES), dtype)
    # only these: others of a config could have transformers fetch and run code
    settings = {name: config[name] for name in _TEXT_SETTINGS if name in config}
    with building(f"{folder}: config.json", "CLIP text model"), torch.device("meta"):
        settings["attn_implementation"] = "sdpa"
        text_encoder: Any = CLIPTextModel(CLIPTextConfig(**settings))
    for module in text_encoder.modules():  # a buffer that no file needs to bring
        positions = getattr(module, "position_ids", None)
        if isinstance(positions, torch.Tensor):
            module.position_ids = torch.arange(positions.shape[-1]).expand(positions.shape)
    own, prefix = text_encoder.state_dict(), "text_model."
    renamed = {}
    for key, value in tensors.items():
        bare = key.removeprefix(prefix)
        name = bare if bare in own else prefix + bare
        if not name.endswith("position_ids") or name in own:  # a buffer that older files have
            renamed[name] = value
    put_weights(text_encoder, renamed, folder)
    return text_encoder.eval()


def load_tokenizer(folder: Path) -> Any:
    """Transformers' CLIPTokenizer.

    Raises:
        ModelError: if the folder holds none.
    """
    from transformers import CLIPTokenizer

    words = all((folder / name).is_file() for name in ("vocab.json", "merges.txt"))
    if not (words or (folder / "tokenizer.json").is_file()) or not (folder / "tokenizer_config.json").is_file():
        wanted = "vocab.json with merges.txt, or tokenizer.json, and tokenizer_config.json"
        raise ModelError(f"{folder}: no tokenizer in the folder; looked for {wanted}")
    with building(folder, "CLIP tokenizer"):
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
