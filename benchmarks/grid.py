"""How much of the decoder's own grid is in the results of models: how unevenly detail, and steps, lie over its cells; and of
habits of other periods and directions: how far the mean of their power spectra is from that of HR.

    python benchmarks/grid.py compact RUN/model --cases CASES --hr HR

CASES and HR as for `quality.py`. Prints for each model and case the means over the photos of the roots of
`grid_distance` of `addsr.losses.grid` and of `seam_distance`, in per cent of the detail's and the steps' strength; then the
distance of the mean `power_shares` of `addsr.losses.spectrum` from HR's, in per cent of its largest; then how woven they
are along the axes, and along the diagonals, the mean `weave` of `addsr.losses.weave` in per cent, at full size, a half and a
quarter. At last what photos of other contents are from one another (the spectrum: every second from the others), which is
chance alone, and how woven HR is.
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
from addsr.losses.normalized_luminance import luminance
from addsr.losses.spectrum import mean_over_frequencies, power_shares
from addsr.losses.weave import weave


def tensor(picture: Image.Image) -> torch.Tensor:
    """(1, 3, H, W) in [0, 1]."""
    return from_uint8(np.asarray(picture.convert("RGB")))[None]


def seam_distance(pictures: torch.Tensor, targets: torch.Tensor, cell: int) -> torch.Tensor:
    """(N,): mean squared difference, over the places between two columns or rows of a cell, of the steps of luminance
    there, in units of its steps over all places. As a loss it is met by lines inside the cells (30B in the log).
    """
    return (_steps(pictures, cell) - _steps(targets, cell)).square().mean(1)


def _steps(pictures: torch.Tensor, cell: int) -> torch.Tensor:
    """(N, 2 cell): mean magnitude of the step after each column of a cell, then after each row; the last is the seam."""
    grey = luminance(pictures)
    across, down = grey.diff(dim=3).abs().mean((1, 2)), grey.diff(dim=2).abs().mean((1, 3))
    steps = torch.stack([line[:, place::cell].mean(1) for line in (across, down) for place in range(cell)], 1)
    return steps / steps.mean(1, keepdim=True).clamp_min(1e-3)


def percent(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor], cell: int) -> str:
    """Of pictures against HR of the same contents or others."""
    values = [
        np.mean([distance(a, b, cell).sqrt().item() for a, b in zip(ours, theirs, strict=True)])
        for distance in (grid_distance, seam_distance)
    ]
    return " / ".join(f"{100 * float(value):.1f}" for value in values)


def spectrum_percent(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> str:
    """Of all pictures together against all of HR. A single picture's own contents have directions and periods, too."""
    a, b = (torch.cat([power_shares(picture) for picture in pictures]).mean(0) for pictures in (ours, theirs))
    alike = mean_over_frequencies((a * b).sqrt()) / (mean_over_frequencies(a) * mean_over_frequencies(b)).sqrt()
    return f"{100 * (1 - alike.mean().item()):.1f}"


def woven_percent(pictures: Sequence[torch.Tensor]) -> str:
    """Of all pictures, each as much as any other, by scale: along the axes, then along the diagonals."""
    values = np.mean([[woven.mean((0, 1, 2, 3, 5)).tolist() for woven in weave(picture)] for picture in pictures], 0)
    return " / ".join(", ".join(f"{100 * value:.1f}" for value in way) for way in values.T)


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
    if len(names) < 2:
        parser.error(f"{arguments.hr}: expected two photos or more")
    hr = [tensor(Image.open(arguments.hr / name)) for name in names]
    cases = sorted(path for path in arguments.cases.iterdir() if path.is_dir())
    for model in arguments.models:
        upscaler = addsr.load(model, device="cpu", precision="fp32")
        cell, cells = upscaler.restorer.vae_scale_factor, [str(model)]
        for case in cases:
            results = [tensor(upscaler(case / name, steps=arguments.steps)) for name in names]
            measures = percent(results, hr, cell), spectrum_percent(results, hr), woven_percent(results)
            cells.append(f"{case.name} {' / '.join(measures)}")
        measures = percent(hr[1:], hr[:-1], cell), spectrum_percent(hr[::2], hr[1::2]), woven_percent(hr)
        chance = " / ".join(measures)
        print(f"| {' | '.join(cells)} | chance {chance} |", flush=True)


if __name__ == "__main__":
    main()
