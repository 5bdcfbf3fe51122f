"""Compact against Real-ESRGAN x4plus's network (23-block, 64-channel RRDBNet, random weights), in alternating runs.

    python benchmarks/speed.py [--precision fp32] [--threads 2] [--size 128] [--runs 5]

Both restore the same size×size picture on the same threads: compact through the public call on a loaded model, RRDBNet as
a bare network (under autocast for bf16). Prints the medians and their ratio.
"""

import argparse
import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import addsr


class DenseBlock(nn.Module):
    """Residual dense block: five convolutions, each seeing all before it."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(width + i * growth, growth if i < 4 else width, 3, padding=1) for i in range(5)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [x]
        for conv in self.convs[:4]:
            features.append(F.leaky_relu(conv(torch.cat(features, 1)), 0.2))
        return x + 0.2 * self.convs[4](torch.cat(features, 1))


class RRDBNet(nn.Module):
    """ESRGAN's generator, ×4."""

    def __init__(self, width: int = 64, blocks: int = 23, growth: int = 32) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(DenseBlock(width, growth) for _ in range(3))) for _ in range(blocks)
        )
        self.conv_body = nn.Conv2d(width, width, 3, padding=1)
        self.ups = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.conv_hr = nn.Conv2d(width, width, 3, padding=1)
        self.conv_last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = x = self.conv_first(x)
        for block in self.blocks:
            x = x + 0.2 * block(x)
        x = first + self.conv_body(x)
        for up in self.ups:
            x = F.leaky_relu(up(F.interpolate(x, scale_factor=2)), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    upscaler = addsr.load("compact", device="cpu", precision=options.precision)
    half = upscaler.restorer.placement.dtype == torch.bfloat16
    photo = np.random.default_rng(0).integers(0, 256, (options.size, options.size, 3), dtype=np.uint8)
    rrdb = RRDBNet().eval().to(memory_format=torch.channels_last)
    lr = torch.from_numpy(photo).permute(2, 0, 1)[None].float().div(255).contiguous(memory_format=torch.channels_last)

    def run_compact() -> None:
        upscaler(photo, steps=options.steps)

    @torch.inference_mode()
    def run_rrdb() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            rrdb(lr)

    times: dict[str, list[float]] = {"compact": [], "RRDBNet": []}
    for i in range(options.runs + 1):
        for name, run in (("compact", run_compact), ("RRDBNet", run_rrdb)):
            begun = time.perf_counter()
            run()
            if i:  # the first run of each warms up
                times[name].append(time.perf_counter() - begun)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = medians["compact"] / medians["RRDBNet"]
    precision = "bf16" if half else "fp32"
    print(f"{precision}, {options.threads} threads, {options.size}² -> {4 * options.size}², {options.steps} step(s)")
    print(f"compact {medians['compact']:.3f} s, RRDBNet {medians['RRDBNet']:.3f} s, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
