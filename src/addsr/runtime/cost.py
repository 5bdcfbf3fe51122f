"""What a computation takes, without doing it: multiply-accumulates and peak memory, counted on the meta device."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """What a computation takes.

    Attributes:
        macs: multiply-accumulates of convolutions and linear layers, as the tables of the papers count them.
        attention_macs: those of the products of queries, keys and values, which such tables leave out.
        peak_bytes: alive at once, inputs not counted.
    """

    macs: int
    attention_macs: int
    peak_bytes: int


class _LiveBytes(TorchDispatchMode):
    """Follows which results are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._users: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        results = func(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, torch.Tensor):
                self._follow(result, known)
        self.peak = max(self.peak, self.alive)
        return results

    def _follow(self, result: torch.Tensor, known: set[int]) -> None:
        storage = result.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._users:
            if key in known:  # a view of a weight or an input
                return
            self._users[key] = 0
            self.alive += size
        self._users[key] += 1
        weakref.finalize(result, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            self.alive -= size


class _Attention(TorchFunctionMode):
    """Counts fused attention itself: the meta device would build the scores that no device's kernel keeps."""

    macs = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, value = args[:3]
        self.macs += query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])
        return query.new_empty(*query.shape[:-1], value.shape[-1])


@torch.no_grad()
def measure(run: Callable[[], object]) -> Cost:
    """The cost of `run`, whose tensors are on the meta device."""
    live, fused = _LiveBytes(), _Attention()
    with FlopCounterMode(display=False) as counter, live, fused:
        run()
    flops = counter.get_flop_counts().get("Global", {})
    attention = sum(count for operator, count in flops.items() if _is_attention(str(operator)))
    return Cost((counter.get_total_flops() - attention) // 2, attention // 2 + fused.macs, live.peak)


def _is_attention(operator: str) -> bool:
    return any(name in operator for name in ("attention", "bmm"))
