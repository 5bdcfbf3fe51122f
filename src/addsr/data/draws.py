"""The random numbers of an iteration, as functions of the run's seed and of each picture's place in the run."""

from collections.abc import Sequence

import numpy as np
import torch


class Draws:
    """Random numbers for one batch.

    Those of a picture depend on (seed, its place) alone, so a run is the same however it is split into batches,
    accumulation and processes, and goes on after a break as if undisturbed. Drawn on the CPU, whatever the device.

    Args:
        seed: of the run.
        start: images seen before the iteration; it seeds `shared`.
        places: place of each picture of the batch in the run, from 0.
        device: where the numbers are wanted.
    """

    def __init__(self, seed: int, start: int, places: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.shared = _generator(seed, start, 1)
        self._own = [_generator(seed, place, 2) for place in places]
        self.device = torch.device(device)

    def __len__(self) -> int:
        return len(self._own)

    def normal(self, *shape: int) -> torch.Tensor:
        """Standard normal (N, *shape), float32."""
        return self._stack([torch.randn(shape, generator=generator) for generator in self._own])

    def uniform(self, *shape: int) -> torch.Tensor:
        """Uniform in [0, 1), (N, *shape), float32."""
        return self._stack([torch.rand(shape, generator=generator) for generator in self._own])

    def integers(self, high: int, *shape: int) -> torch.Tensor:
        """Uniform in 0..high-1, (N, *shape), int64."""
        return self._stack([torch.randint(high, shape, generator=generator) for generator in self._own])

    def shared_uniform(self) -> float:
        """One number in [0, 1), the same for all pictures and processes."""
        return torch.rand((), generator=self.shared).item()

    def shared_integers(self, high: int, count: int) -> list[int]:
        """Numbers in 0..high-1, the same for all pictures and processes."""
        return torch.randint(high, (count,), generator=self.shared).tolist()

    def _stack(self, numbers: list[torch.Tensor]) -> torch.Tensor:
        stacked = torch.stack(numbers)
        if stacked.ndim == 4:
            stacked = stacked.contiguous(memory_format=torch.channels_last)
        return stacked.to(self.device)


def _generator(*key: int) -> torch.Generator:
    """Keys are mixed well: neighbouring seeds of the generator alone would give related streams."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))
