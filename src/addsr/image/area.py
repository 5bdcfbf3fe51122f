"""Resizing by means over areas, as adaptive pooling takes them; for any sizes on any device (MPS pools even ones only)."""

import torch
import torch.nn.functional as F

LARGEST = 512  # pixels along a side up to which two matrix products are several times as fast as the pooling itself


def area(pictures: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Pictures (..., H, W) -> (..., *size): means over bins, which share positions at their edges."""
    height, width = pictures.shape[-2:]
    if max(height, width, *size) > LARGEST and pictures.device.type != "mps":
        flat = pictures.reshape(1, -1, height, width)
        return F.interpolate(flat, size, mode="area").reshape(*pictures.shape[:-2], *size)
    rows, columns = (_bins(extent, wanted, pictures) for extent, wanted in ((height, size[0]), (width, size[1])))
    with torch.autocast(pictures.device.type, enabled=False):  # bf16's steps are coarser than 8 bits'
        return rows.T @ (pictures @ columns)


def _bins(extent: int, count: int, like: torch.Tensor) -> torch.Tensor:
    """(extent, count): the weight of each position in each of the `count` bins."""
    bins, positions = torch.arange(count), torch.arange(extent)[:, None]
    start, end = bins * extent // count, -(-(bins + 1) * extent // count)
    return (((positions >= start) & (positions < end)) / (end - start)).to(like)
