import pytest
import torch

from addsr.diffusion.noise import BLOCK, positional_noise


def region(top, left, height, width, seed=0, step=0):
    return positional_noise(seed, step, 3, slice(top, top + height), slice(left, left + width))


@pytest.mark.parametrize("corner", [(0, 0), (5, 9), (BLOCK - 1, 2 * BLOCK + 3), (BLOCK, BLOCK)])
def test_a_region_is_the_same_alone_and_within_a_larger_one(corner):
    plane = region(0, 0, 3 * BLOCK, 4 * BLOCK)
    top, left = corner
    assert torch.equal(region(top, left, 40, 70), plane[:, :, top : top + 40, left : left + 70])


def test_seed_step_and_block_all_matter():
    base = region(0, 0, 8, 8)
    others = [region(0, 0, 8, 8, seed=1), region(0, 0, 8, 8, step=1), region(BLOCK, 0, 8, 8), region(0, BLOCK, 8, 8)]
    assert torch.equal(base, region(0, 0, 8, 8))
    assert not any(torch.equal(base, other) for other in others)


def test_it_is_standard_normal():
    plane = region(0, 0, 512, 512)
    assert plane.mean().abs() < 0.01
    assert (plane.std() - 1).abs() < 0.01
