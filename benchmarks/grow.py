"""A larger model that restores as the given one does, to be trained on: layers, and a stack at half of the picture's
resolution, that add nothing at first.

    python benchmarks/grow.py OUT compact --layers 3 2 1 1 --decoder-layers 6

Of a model like compact: a U-Net without attention and an autoencoder that reaches pixels by PixelShuffle. A new residual
layer's last convolution is zero (Net2DeeperNet: Chen et al., "Net2Net", 2016). OUT, in float32, without the papers of the
model, must not exist.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from addsr.checkpoints.hashes import HASHES
from addsr.errors import ModelError
from addsr.loading import find_model
from addsr.models.autoencoder import PixelShuffleAutoencoder
from addsr.models.unet import AddSRUNet

NAME = "diffusion_pytorch_model.safetensors"


def idle_layers_(network: nn.Module) -> None:
    """Let every residual layer pass on what it gets (of two joined pictures, the first), in place."""
    for name, tensor in network.named_parameters():
        if ".resnets." in name:
            if ".conv2." in name or name.endswith("conv_shortcut.bias"):
                nn.init.zeros_(tensor)
            elif name.endswith("conv_shortcut.weight"):
                nn.init.dirac_(tensor)


def new_place(name: str, old: list[int], new: list[int]) -> str:
    """Where a tensor of the smaller U-Net lies in the larger one.

    Down, new layers follow the old ones. Up, the first layer brings its input to the level's width and stays the first; the
    new ones come next, as they read the new layers' skips.
    """
    part, *rest = name.split(".")
    if part != "up_blocks" or rest[1] != "resnets" or rest[2] == "0":
        return name
    level = len(old) - 1 - int(rest[0])
    rest[2] = str(int(rest[2]) + new[level] - old[level])
    return ".".join([part, *rest])


def main() -> None:
    """Grow and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("model")
    parser.add_argument("--layers", type=int, nargs="+", required=True, help="of the U-Net's levels, finest first")
    parser.add_argument("--decoder-layers", type=int, required=True)
    parser.add_argument("--fine-width", type=int, help="of a stack at half resolution, where there is none yet")
    parser.add_argument("--fine-layers", type=int, help="of that stack; as many as it has, or 1")
    options = parser.parse_args()
    try:
        model = find_model(options.model)
    except ModelError as error:
        parser.error(str(error))
    if options.out.exists():
        parser.error(f"{options.out}: exists already")
    configs: dict[str, dict[str, Any]] = {
        name: json.loads((model / name / "config.json").read_text()) for name in ("unet", "vae")
    }
    widths, layers = configs["unet"]["block_out_channels"], configs["unet"]["layers_per_block"]
    old = [layers] * len(widths) if isinstance(layers, int) else layers
    if len(options.layers) != len(old) or any(more < less for more, less in zip(options.layers, old, strict=True)):
        parser.error(f"--layers: expected {len(old)} values of at least {old}")
    if options.decoder_layers < configs["vae"]["decoder_layers"]:
        parser.error(f"--decoder-layers: expected at least {configs['vae']['decoder_layers']}")
    configs["unet"]["layers_per_block"] = options.layers
    configs["vae"]["decoder_layers"] = options.decoder_layers
    width, fine_layers = configs["vae"].get("fine_width", 0), configs["vae"].get("fine_layers", 1)
    if options.fine_width and width:
        parser.error(f"--fine-width: {options.model} has such a stack already")
    if options.fine_layers is not None and not (width or options.fine_width):
        parser.error("--fine-layers: needs --fine-width")
    if options.fine_layers is not None and options.fine_layers < (least := fine_layers if width else 1):
        parser.error(f"--fine-layers: expected at least {least}")
    if options.fine_width or options.fine_layers:
        configs["vae"] |= {"fine_width": options.fine_width or width, "fine_layers": options.fine_layers or fine_layers}
    torch.manual_seed(0)
    networks: tuple[tuple[str, nn.Module], ...] = (
        ("unet", AddSRUNet.from_config(configs["unet"])),  # pyright: ignore[reportAssignmentType]
        ("vae", PixelShuffleAutoencoder.from_config(configs["vae"])),
    )
    shutil.copytree(model, options.out, ignore=shutil.ignore_patterns("*.safetensors", HASHES, "*.md", "*.csv"))
    for name, network in networks:
        idle_layers_(network)
        tensors = network.state_dict()
        for key, tensor in load_file(model / name / NAME).items():
            place = new_place(key, old, options.layers)
            into = tensors[place][: len(tensor)]  # new channels come last
            assert into.shape == tensor.shape, place
            into.copy_(tensor)
        save_file(
            {key: tensor.contiguous() for key, tensor in tensors.items()}, options.out / name / NAME, {"format": "pt"}
        )
        (options.out / name / "config.json").write_text(json.dumps(configs[name], indent=2) + "\n")


if __name__ == "__main__":
    main()
