"""Whether fine detail is as a photo's is: sparse, edged, of no grid, whatever its strength.

Luminance less its local mean, in units of its local deviation, has nearly the same statistics in all photos, which blur,
noise and invented texture change in their own ways (Mittal et al., "No-reference image quality assessment in the spatial
domain", 2012, and NIQE, 2013, which fit distributions to them). Here they are compared with HR's own at the same place,
as plain means. `losses.detail` asks how much detail there is; this, of what kind. Where it trains, NIQE is no longer a
measure of its own.
"""

import torch
import torch.nn.functional as F

from addsr.losses.normalized_luminance import locally_normalized, luminance

SCALES = 2
WINDOW = 64  # pixels along a side, about, over which statistics are taken
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


def scene_statistics_distance(pictures: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of the statistics, over windows, scales and statistics.

    Args:
        pictures, targets: (N, 3, H, W) in about [0, 1], sides of at least 16 pixels; targets are HR.

    Returns:
        (N,).
    """
    with torch.autocast(pictures.device.type, enabled=False):
        ours, theirs = luminance(pictures.float()), luminance(targets.float())
        windows = max(1, ours.shape[-2] // WINDOW), max(1, ours.shape[-1] // WINDOW)
        total = ours.new_zeros(len(ours))
        for _ in range(SCALES):
            with torch.no_grad():
                wanted = _statistics(theirs, windows)
            total = total + (_statistics(ours, windows) - wanted).abs().mean((1, 2, 3))
            ours, theirs = F.avg_pool2d(ours, 2), F.avg_pool2d(theirs, 2)
        return total / SCALES


def _statistics(grey: torch.Tensor, windows: tuple[int, int]) -> torch.Tensor:
    """(N, 10, *windows): means of |m|, of m², and of the positive and negative parts of products of neighbours."""
    normalized = locally_normalized(grey)
    inner = normalized[:, :, 1:-1, 1:-1]
    products = torch.cat([inner * _moved(normalized, *offset) for offset in NEIGHBOURS], 1)
    values = torch.cat([inner.abs(), inner.square(), F.relu(products), F.relu(-products)], 1)
    sides = [extent // count for extent, count in zip(values.shape[-2:], windows, strict=True)]
    return F.avg_pool2d(values, sides)[:, :, : windows[0], : windows[1]]


def _moved(values: torch.Tensor, down: int, right: int) -> torch.Tensor:
    height, width = values.shape[-2:]
    return values[:, :, 1 + down : height - 1 + down, 1 + right : width - 1 + right]
