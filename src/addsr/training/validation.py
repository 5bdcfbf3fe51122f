"""Measures on photos that are held out of training, for choosing checkpoints."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from addsr.data.degradation import to_uint8
from addsr.data.pairs import Pairs
from addsr.diffusion.restorer import Restorer
from addsr.diffusion.schedule import scaled_linear_alphas_cumprod
from addsr.losses.lpips import SqueezeLPIPS
from addsr.training.ema import EMA

SHOWN = 5  # pairs on the sample sheet


class HeldOut:
    """Restores the same held-out pairs at every checkpoint: a line of `held.jsonl`, and `held.png` with LR, ours and HR.

    Args:
        pairs: held-out pairs; the first `count` are used.
        lpips: the loss network.
        prediction_type: of the U-Net.
        out: folder of the run.
    """

    def __init__(self, pairs: Pairs, lpips: SqueezeLPIPS, prediction_type: str, out: Path, count: int = 16) -> None:
        items = [pairs[i] for i in range(count)]
        self.hr, self.lr = (torch.stack([item[name] for item in items]) for name in ("hr", "lr"))
        self.lpips, self.prediction_type, self.out = lpips, prediction_type, out

    @torch.no_grad()
    def __call__(self, images: int, averages: dict[str, EMA]) -> None:
        """Measure the averaged networks after `images` images, at one and four steps."""
        row: dict[str, float] = {"images": images}
        unet, vae = averages["unet"].module, averages["vae"].module
        restorer = Restorer(unet, vae, scaled_linear_alphas_cumprod(), self.prediction_type, start_point="noise")
        sheet = [self.lr]
        for steps in (1, 4):
            parts = [restorer.decode_latents(restorer(lr, num_inference_steps=steps)) for lr in self.lr.split(4)]
            restored = (torch.cat(parts) / 2 + 0.5).clamp(0, 1)
            row[f"psnr_{steps}"] = -10 * (restored - self.hr).square().mean((1, 2, 3)).log10().mean().item()
            row[f"lpips_{steps}"] = self.lpips(restored, self.hr).mean().item()
            sheet.append(restored)
        with (self.out / "held.jsonl").open("a") as file:
            file.write(json.dumps({name: round(value, 4) for name, value in row.items()}) + "\n")
        rows = [np.concatenate([to_uint8(x[i]) for x in [*sheet, self.hr]], 1) for i in range(min(SHOWN, len(self.hr)))]
        Image.fromarray(np.concatenate(rows)).save(self.out / "held.png")
