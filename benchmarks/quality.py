"""How good models are on degraded photos: PSNR-Y, LPIPS-Alex and NIQE by number of steps and fidelity.

    python benchmarks/quality.py compact RUN/model --cases CASES --hr HR --tools TOOLS --steps 1 2 3 4 --json rows.json

CASES holds a folder of LR pictures per degradation (TOOLS/make_cases.py makes them from HR), HR the sharp photos by the same
names; TOOLS is the folder of `score.py` and `measures.py`. Prints a Markdown row for each model, number of steps and
fidelity, with the mean over the photos for every case, and their mean.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

import addsr

MEASURES = ("psnr_y", "lpips_alex", "niqe")


class Quality:
    """Restores the cases with a model and scores them.

    Args:
        cases, hr, tools: folders, see above.
        photos: only the first so many; 0 for all.
        fast: without NIQE.
    """

    def __init__(self, cases: Path, hr: Path, tools: Path, photos: int = 0, *, fast: bool = False) -> None:
        sys.path.insert(0, str(tools))
        from score import Scorer, pictures  # pyright: ignore[reportMissingImports]

        self.scorer = Scorer(fast)
        self.references: Sequence[Path] = pictures(hr)[: photos or None]
        self.cases = sorted(folder for folder in cases.iterdir() if folder.is_dir())

    def __call__(self, upscaler: addsr.Upscaler, **options: Any) -> dict[str, dict[str, float]]:
        """Case -> measure -> mean over the photos; the case `mean` is the mean of the others."""
        means = {case.name: self._case(upscaler, case, options) for case in self.cases}
        every = {key: float(np.mean([row[key] for row in means.values()])) for key in next(iter(means.values()))}
        return means | {"mean": every}

    def _case(self, upscaler: addsr.Upscaler, case: Path, options: dict[str, Any]) -> dict[str, float]:
        rows = []
        with TemporaryDirectory() as folder:
            for reference in self.references:
                result = Path(folder) / f"{reference.stem}.png"
                upscaler(case / f"{reference.stem}.png", **options).save(result)
                rows.append(self.scorer.picture(result, reference))
        return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def measured(
    quality: Quality, models: Sequence[str], steps: Sequence[int], fidelities: Sequence[float | None]
) -> Iterator[Any]:
    """A row for each combination."""
    for model in models:
        upscaler = addsr.load(model, device="cpu", precision="fp32")
        for number, fidelity in product(steps, fidelities):
            means = quality(upscaler, steps=number, fidelity=fidelity)
            yield {"model": model, "steps": number, "fidelity": fidelity, "means": means}


def markdown(row: dict[str, Any]) -> str:
    """PSNR-Y / LPIPS / NIQE of every case."""
    fidelity = "" if row["fidelity"] is None else f", fidelity {row['fidelity']:g}"
    cells = [f"{row['model']}, {row['steps']} step{'s' if row['steps'] > 1 else ''}{fidelity}"]
    formats = {"psnr_y": ".2f", "lpips_alex": ".3f", "niqe": ".2f"}
    cells += [
        " / ".join(format(means[key], formats[key]) for key in MEASURES if key in means)
        for means in row["means"].values()
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    for name in ("cases", "hr", "tools"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--fidelity", type=float, nargs="+", default=[None])
    parser.add_argument("--photos", type=int, default=0, help="only the first so many")
    parser.add_argument("--fast", action="store_true", help="without NIQE")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    quality = Quality(options.cases, options.hr, options.tools, options.photos, fast=options.fast)
    print("| | " + " | ".join([case.name for case in quality.cases] + ["mean"]) + " |")
    rows = []
    for row in measured(quality, options.models, options.steps, options.fidelity):
        rows.append(row)
        print(markdown(row), flush=True)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
