"""Keep on the device only the networks that compute: the others wait in the computer's own memory."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn


class Offload:
    """Moves groups of networks to the device as they are used, one group at a time.

    Args:
        groups: networks that are used together, by name; without any, nothing is ever moved.
        device: where they compute; None with `groups` empty.
    """

    def __init__(
        self, groups: Mapping[str, Sequence[nn.Module]] | None = None, device: torch.device | None = None
    ) -> None:
        self.groups, self.device = dict(groups or {}), device
        self._present: str | None = None

    def use(self, name: str) -> None:
        """Bring the group `name` (where there is one) to the device, and take the last one away."""
        if name == self._present or name not in self.groups:
            return
        assert self.device is not None
        if self._present is not None:
            self._move(self._present, torch.device("cpu"))
            self._present = None
        try:
            self._move(name, self.device)
        except Exception:
            self._move(name, torch.device("cpu"))
            raise
        self._present = name

    def _move(self, name: str, device: torch.device) -> None:
        for network in self.groups[name]:
            nn.Module.to(network, device)
