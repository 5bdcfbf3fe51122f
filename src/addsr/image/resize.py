"""Antialiased bicubic resampling of float tensors, whole or one region at a time.

The kernel is Keys' cubic with a = -0.5, widened when shrinking; borders are cut and renormalised. That is Pillow's BICUBIC
(without its 8-bit rounding), away from borders also MATLAB's imresize.
"""

import torch

BLOCK = 256  # output positions at a time: the weights of a block are a small dense matrix


def _keys_cubic(x: torch.Tensor) -> torch.Tensor:
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def axis_weights(in_size: int, out_size: int, start: int, stop: int) -> tuple[torch.Tensor, int]:
    """Weights of the output positions start..stop-1 of an axis resampled from `in_size` to `out_size`.

    Returns:
        A matrix (stop - start, taps) and the first input position that it covers.
    """
    scale = in_size / out_size
    width = max(scale, 1.0)
    support = 2 * width
    centres = (torch.arange(start, stop, dtype=torch.float64) + 0.5) * scale
    first = max(0, int(centres[0] - support))
    last = min(in_size, int(centres[-1] + support) + 1)
    positions = torch.arange(first, last, dtype=torch.float64) + 0.5
    weights = _keys_cubic((positions - centres[:, None]) / width)
    return (weights / weights.sum(1, keepdim=True)).float(), first


def resize_region(image: torch.Tensor, size: tuple[int, int], rows: slice, columns: slice) -> torch.Tensor:
    """The part [rows, columns] of `image` (..., H, W) resized to `size` (height, width), as if cut from the whole."""
    height, width = image.shape[-2:]
    margin = int(2 * max(width / size[1], 1.0)) + 2  # the kernel's reach in input columns
    west = max(0, int(columns.start * width / size[1]) - margin)
    east = min(width, int(columns.stop * width / size[1]) + margin + 1)
    result = image.new_empty(*image.shape[:-2], rows.stop - rows.start, columns.stop - columns.start)
    for top in range(rows.start, rows.stop, BLOCK):
        bottom = min(top + BLOCK, rows.stop)
        vertical, first = axis_weights(height, size[0], top, bottom)
        band = vertical.to(image) @ image[..., first : first + vertical.shape[1], west:east]
        for left in range(columns.start, columns.stop, BLOCK):
            right = min(left + BLOCK, columns.stop)
            horizontal, first = axis_weights(width, size[1], left, right)
            block = band[..., first - west : first - west + horizontal.shape[1]] @ horizontal.to(image).T
            result[..., top - rows.start : bottom - rows.start, left - columns.start : right - columns.start] = block
    return result


def resize(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """`image` (..., H, W), any range, resized to `size` (height, width); values may overshoot the input's range."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return resize_region(image, size, slice(0, size[0]), slice(0, size[1]))
