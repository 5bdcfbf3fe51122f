"""Measures on photos that are held out of training, for choosing checkpoints."""

import json
import math
from copy import copy
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from addsr.data.pairs import Pairs
from addsr.diffusion.restorer import Restorer
from addsr.image.uint8 import to_uint8
from addsr.losses.lpips import SqueezeLPIPS
from addsr.training.config import NETWORKS
from addsr.training.ema import EMA

SHOWN = 5  # pairs on the sample sheet
PART = 4  # pictures restored at once
LEAST_ERROR = 1e-10  # squared; a white picture that is restored as it was has none


class HeldOut:
    """Restores the same held-out pairs at every checkpoint.

    Writes a line of `held.jsonl` and a sheet `samples/IMAGES.png`: LR, ours at each number of steps, HR.

    Args:
        pairs: held-out pairs; all of them are used.
        lpips: measures, where it is there.
        restorer: whose networks are averaged; the others are used as they are.
        out: folder of the run.
        steps: numbers of steps.

    Attributes:
        damaged: names of photos that could not be decoded.
    """

    def __init__(
        self,
        pairs: Pairs,
        lpips: SqueezeLPIPS | None,
        restorer: Restorer,
        out: Path,
        *,
        steps: tuple[int, ...] = (1, 4),
        prompt_embeds: torch.Tensor | None = None,
    ) -> None:
        items = [pairs[i] for i in range(len(pairs))]
        self.damaged = {name for item in items for name in item["damaged"].splitlines()}
        self.hr, self.lr = (torch.stack([item[name] for item in items]) for name in ("hr", "lr"))
        self.lpips, self.restorer, self.out, self.steps = lpips, restorer, out, steps
        self.prompt_embeds = prompt_embeds
        self._measures = out / "held.jsonl"

    @torch.no_grad()
    def __call__(self, images: int, averages: dict[str, EMA]) -> dict[str, float]:
        """Measures of the averaged networks after `images` images; nothing is written where they are not finite."""
        row: dict[str, float] = {"images": images}
        restorer = self._averaged(averages)
        sheet = [self.lr]
        for steps in self.steps:
            restored = torch.cat([self._restore(restorer, lr, steps) for lr in self.lr.split(PART)])
            errors = (restored - self.hr).square().mean((1, 2, 3)).clamp(min=LEAST_ERROR)
            row[f"psnr_{steps}"] = -10 * errors.log10().mean().item()
            if self.lpips is not None:
                device = self.lpips.get_buffer("mean").device
                distances = [
                    self.lpips(a.to(device), b.to(device))
                    for a, b in zip(restored.split(PART), self.hr.split(PART), strict=True)
                ]
                row[f"lpips_{steps}"] = torch.cat(distances).mean().item()
            sheet.append(restored)
        if not all(map(math.isfinite, row.values())):
            return row
        rows = [np.concatenate([to_uint8(x[i]) for x in [*sheet, self.hr]], 1) for i in range(min(SHOWN, len(self.hr)))]
        (self.out / "samples").mkdir(exist_ok=True)
        Image.fromarray(np.concatenate(rows)).save(self.out / "samples" / f"{images:09d}.png")
        with self._measures.open("a") as file:
            file.write(json.dumps({name: round(value, 4) for name, value in row.items()}) + "\n")
        return row

    def has(self, images: int) -> bool:
        """Whether the checkpoint after so many images was measured; a run may have been killed before."""
        return self._measures.is_file() and any(
            json.loads(line)["images"] == images for line in self._measures.read_text().splitlines()
        )

    def _restore(self, restorer: Restorer, lr: torch.Tensor, steps: int) -> torch.Tensor:
        embeds = None if self.prompt_embeds is None else self.prompt_embeds.expand(len(lr), -1, -1)
        x0 = restorer(lr, num_inference_steps=steps, guidance_scale=1.0, prompt_embeds=embeds)
        return restorer.decode_latents(x0).clamp(0, 1).cpu()

    def _averaged(self, averages: dict[str, EMA]) -> Restorer:
        averaged = copy(self.restorer)
        for name in NETWORKS:
            if name in averages:
                setattr(averaged, name, averages[name].module)
        return averaged
