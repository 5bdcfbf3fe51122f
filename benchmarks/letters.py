"""How well models restore letters: PSNR of validation photos with letters on them (`addsr.data.lettering`, in Pillow's own
face, which training on other fonts has not seen), and a sheet to read.

    python benchmarks/letters.py compact compact@1 RUN/model --hr HR --out SHEET.png

MODEL@F is a model at a fidelity of F. HR as for `quality.py`, of which the middle 256² of each photo is taken. The sheet has
a row for each of the first photos: LR, each model's result, HR.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import addsr
from addsr.data.degradation import fixed_case
from addsr.data.lettering import LetteringSettings, lettered
from addsr.image.uint8 import from_uint8, to_uint8

SIDE = 256
CASES = ("bicubic", "blur", "mix")
SETTINGS = LetteringSettings(size=(16, 40), blocks=(2, 4))  # 4 to 10 pixels a line in LR
ROWS = 6


def photo_with_letters(path: Path, seed: int) -> torch.Tensor:
    """(3, SIDE, SIDE) in [0, 1], of 8-bit values."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    top, left = ((extent - SIDE) // 2 for extent in pixels.shape[:2])
    crop = from_uint8(pixels[top : top + SIDE, left : left + SIDE])
    return from_uint8(to_uint8(lettered(crop, SETTINGS, [None], np.random.default_rng(seed))))


def psnr(ours: Sequence[Image.Image], hr: Sequence[torch.Tensor]) -> float:
    """Mean over the photos, in dB."""
    errors = [(from_uint8(np.asarray(a)) - b).square().mean() for a, b in zip(ours, hr, strict=True)]
    return float(torch.stack(errors).log10().mul(-10).mean())


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--hr", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    hr = [photo_with_letters(path, seed) for seed, path in enumerate(sorted(arguments.hr.glob("*.png")))]
    if not hr:
        parser.error(f"{arguments.hr}: no photos (.png)")
    lr = {
        case: [Image.fromarray(to_uint8(fixed_case(x, case, np.random.default_rng(seed)))) for seed, x in enumerate(hr)]
        for case in CASES
    }
    enlarged = {case: [x.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for x in some] for case, some in lr.items()}
    results = {"bicubic upscaling": enlarged}
    for model in arguments.models:
        name, _, fidelity = model.partition("@")
        upscaler = addsr.load(name, device="cpu", precision="fp32", fidelity=float(fidelity or 0))
        results[model] = {case: [upscaler(x) for x in some] for case, some in lr.items()}
    print(f"| | {' | '.join(CASES)} |")
    for model, ours in results.items():
        print(f"| {model} | {' | '.join(f'{psnr(ours[case], hr):.2f}' for case in CASES)} |", flush=True)
    if arguments.out:
        columns = [*(ours[CASES[0]] for ours in results.values()), [Image.fromarray(to_uint8(x)) for x in hr]]
        sheet = Image.new("RGB", (len(columns) * SIDE, min(ROWS, len(hr)) * SIDE))
        for column, pictures in enumerate(columns):
            for row, picture in enumerate(pictures[:ROWS]):
                sheet.paste(picture, (column * SIDE, row * SIDE))
        sheet.save(arguments.out)


if __name__ == "__main__":
    main()
