"""How much of the decoder's own grid is in the results of models: how unevenly detail lies over the places of a 4×4 cell.

    python benchmarks/grid.py compact RUN/model --cases CASES --hr HR

CASES and HR as for `quality.py`. Prints for each model and case the mean over the photos of the root of
`addsr.losses.grid.grid_distance`, in per cent of the detail's strength, and what photos of other contents are from one
another, which is chance alone.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import addsr
from addsr.image.uint8 import from_uint8
from addsr.losses.grid import grid_distance


def tensor(picture: Image.Image) -> torch.Tensor:
    """(1, 3, H, W) in [0, 1]."""
    return from_uint8(np.asarray(picture.convert("RGB")))[None]


def unevenness(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor], cell: int) -> float:
    """Per cent, of pictures against HR."""
    pairs = zip(ours, theirs, strict=True)
    return 100 * float(np.mean([grid_distance(a, b, cell).sqrt().item() for a, b in pairs]))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--hr", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    names = sorted(path.name for path in arguments.hr.glob("*.png"))
    hr = [tensor(Image.open(arguments.hr / name)) for name in names]
    cases = sorted(path for path in arguments.cases.iterdir() if path.is_dir())
    for model in arguments.models:
        upscaler = addsr.load(model, device="cpu", precision="fp32")
        cell, cells = upscaler.restorer.vae_scale_factor, [str(model)]
        for case in cases:
            results = [tensor(upscaler(case / name, steps=arguments.steps)) for name in names]
            cells.append(f"{case.name} {unevenness(results, hr, cell):.1f}")
        print(f"| {' | '.join(cells)} | chance {unevenness(hr[1:], hr[:-1], cell):.1f} |", flush=True)


if __name__ == "__main__":
    main()
