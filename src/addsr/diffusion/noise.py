"""Noise as a function of (seed, step, position), so that a picture does not depend on how it was cut into tiles.

The latent plane is divided into fixed blocks; each block of each step has a generator of its own, on the CPU. Any region
can be drawn without the rest, on any device, in any order.
"""

import hashlib

import torch

BLOCK = 64  # latents along a side of a block
POSTERIOR_STEP = -1  # the step number of the noise of the autoencoder's posterior


def _block(seed: int, step: int, row: int, column: int, channels: int) -> torch.Tensor:
    key = ",".join(map(str, (seed, step, row, column))).encode()
    generator = torch.Generator().manual_seed(
        int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1
    )
    return torch.randn((channels, BLOCK, BLOCK), generator=generator)


def positional_noise(seed: int, step: int, channels: int, rows: slice, columns: slice) -> torch.Tensor:
    """Standard normal noise of a region of the latent plane.

    Args:
        seed: the caller's.
        step: number of the drawing: 0 for the first latents, 1.. for each noising after a step.
        channels: of the latents.
        rows, columns: the region, in latents from the picture's corner; both non-negative.

    Returns:
        (1, channels, rows, columns), float32, on the CPU.
    """
    bands = []
    for row in range(rows.start // BLOCK, -(-rows.stop // BLOCK)):
        blocks = [
            _block(seed, step, row, c, channels) for c in range(columns.start // BLOCK, -(-columns.stop // BLOCK))
        ]
        bands.append(torch.cat(blocks, dim=2))
    plane = torch.cat(bands, dim=1)
    top, left = rows.start // BLOCK * BLOCK, columns.start // BLOCK * BLOCK
    return plane[None, :, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
