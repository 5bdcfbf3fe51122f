"""The processes of a run and their devices: what one tells the others."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from addsr.errors import MissingExtraError

BUCKET = 50_000_000  # gradients that are averaged at once


def make_accelerator() -> Any:
    """Accelerate's view of devices and processes; it allows one precision a program, so autocast is the loop's own business.

    Raises:
        MissingExtraError: without accelerate.
    """
    try:
        from accelerate import Accelerator
    except ImportError:
        raise MissingExtraError("training needs accelerate: pip install 'addsr[train]'") from None
    # Unless it is told that there is nothing else, accelerate overlooks the other processes of `torchrun` on CPUs.
    return Accelerator(mixed_precision="no", cpu=not torch.accelerator.is_available())


class Processes:
    """What goes between the processes that `accelerator` knows; alone, nothing does.

    Gradients are averaged by hand, once an update, for every parameter of every player: a task calls its networks as it
    likes, which a wrapper that counts forward passes (DistributedDataParallel) would not see.
    """

    def __init__(self, accelerator: Any) -> None:
        self.accelerator = accelerator
        self.alone = accelerator.num_processes == 1

    def share(self, networks: Iterable[nn.Module]) -> None:
        """The main process's weights for all: each made its own, and other hardware may have rounded otherwise."""
        if self.alone:
            return
        from accelerate.utils import broadcast

        with torch.no_grad():
            for network in networks:
                for tensor in (*network.parameters(), *network.buffers()):
                    tensor.copy_(broadcast(tensor.detach().contiguous()))  # pyright: ignore[reportArgumentType]

    def average_gradients(self, parameters: list[nn.Parameter]) -> None:
        """A parameter has a gradient afterwards if it had one in any of them."""
        if self.alone:
            return
        device = self.accelerator.device
        here = torch.tensor(
            [parameter.grad is not None for parameter in parameters], dtype=torch.float32, device=device
        )
        anywhere = self.accelerator.reduce(here, "sum") > 0
        moved = [parameter for parameter, has in zip(parameters, anywhere.tolist(), strict=True) if has]
        if not moved:
            return
        for parameter in moved:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for gradients in _buckets([parameter.grad for parameter in moved if parameter.grad is not None]):
            flat = self.accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
            for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(mean.view_as(gradient))

    def mean_of(self, value: torch.Tensor) -> torch.Tensor:
        """Of each process's tensor."""
        return value if self.alone else self.accelerator.reduce(value, "mean")

    def mean(self, value: float) -> float:
        """Of each process's number, in float32."""
        return self.mean_of(torch.tensor(value, device=self.accelerator.device)).item()

    def agreed(self, wish: bool) -> bool:
        """Whether any process wishes it."""
        return wish if self.alone else self.mean(float(wish)) > 0

    def all_of(self, value: Any) -> list[Any]:
        """Every process's value."""
        if self.alone:
            return [value]
        from accelerate.utils import gather_object

        return gather_object([value])


def _buckets(tensors: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """In order, in lists of at most `BUCKET` values, or of one tensor that has more."""
    bucket: list[torch.Tensor] = []
    for tensor in tensors:
        if bucket and sum(x.numel() for x in bucket) + tensor.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    yield bucket
