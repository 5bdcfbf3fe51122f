"""A model at the fidelities that are asked for."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from addsr.upscaler import Upscaler


class Dial:
    """A model at the fidelities that are asked for. It is opened anew for each, as one that is in use must not change.

    Args:
        open_at: opens it.
        kept: the last so many are kept.
    """

    def __init__(self, open_at: Callable[[float], "Upscaler"], kept: int) -> None:
        self._open_at, self._kept = open_at, kept
        self._opened: OrderedDict[float, Upscaler] = OrderedDict()
        self._lock = threading.Lock()

    def at(self, fidelity: float) -> "Upscaler":
        """The model at a fidelity from 0 to 1."""
        with self._lock:  # whoever else asks for the same waits for it instead of opening it once more
            upscaler = self._opened.pop(fidelity, None) or self._open_at(fidelity)
            upscaler.dial = self
            self._opened[fidelity] = upscaler
            while len(self._opened) > self._kept:
                self._opened.popitem(last=False)
            return upscaler
