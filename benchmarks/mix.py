"""A weighted sum of models' weights, as the bundled weights are: runs from one start average well (docs/training-log.md).

    python benchmarks/mix.py OUT RUN1/model:0.5 RUN2/model:0.75 START:-0.25

The weights must sum to 1; a negative one moves away from that model. OUT gets the first model's configuration, in float32,
without its faithful set and its papers, and must not exist.
"""

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from addsr.checkpoints.hashes import HASHES
from addsr.errors import ModelError
from addsr.loading import find_model

NAME = "diffusion_pytorch_model.safetensors"


def mixed(files: list[tuple[Path, float]]) -> dict[str, torch.Tensor]:
    """The sum of safetensors files with the same tensors, in float32."""
    total: dict[str, torch.Tensor] = {}
    for path, weight in files:
        tensors = load_file(path)
        if total and {name: t.shape for name, t in tensors.items()} != {name: t.shape for name, t in total.items()}:
            raise SystemExit(f"{path}: other tensors or shapes than {files[0][0]}")
        for name, tensor in tensors.items():
            total[name] = total.get(name, torch.zeros(())) + weight * tensor.float()
    return total


def main() -> None:
    """Mix and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("models", nargs="+", metavar="MODEL:WEIGHT")
    options = parser.parse_args()
    parts: list[tuple[Path, float]] = []
    for model in options.models:
        name, _, weight = model.rpartition(":")
        try:
            parts.append((find_model(name), float(weight)))
        except ValueError:
            parser.error(f"{model!r} is not MODEL:WEIGHT")
        except ModelError as error:
            parser.error(str(error))
    if abs(sum(weight for _, weight in parts) - 1) > 1e-6:
        parser.error(f"the weights sum to {sum(weight for _, weight in parts):g}; they must sum to 1")
    if options.out.exists():
        parser.error(f"{options.out}: exists already")
    first = parts[0][0]
    networks, *others = [{path.parent.name for path in folder.glob(f"*/{NAME}")} for folder, _ in parts]
    if not networks or any(other != networks for other in others):
        parser.error("the models have not the same networks")
    weights = {network: mixed([(folder / network / NAME, weight) for folder, weight in parts]) for network in networks}
    shutil.copytree(first, options.out, ignore=shutil.ignore_patterns("*.safetensors", HASHES, "*.md", "*.csv"))
    for network, tensors in weights.items():
        save_file(tensors, options.out / network / NAME, metadata={"format": "pt"})


if __name__ == "__main__":
    main()
