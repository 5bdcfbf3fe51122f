"""Which parameters train, by name pattern."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from addsr.diffusion.restorer import Restorer
from addsr.errors import TrainingError


def choose_trainable(networks: Mapping[str, nn.Module], patterns: Sequence[str]) -> list[nn.Parameter]:
    """Freeze all parameters but those whose full name, such as `unet.conv_in.weight`, fits one of the patterns.

    Args:
        networks: by the name that begins their parameters' names.
        patterns: of the shell's kind: `*` for all, `*.image_attentions.*` for the representation cross-attentions.

    Raises:
        TrainingError: if a pattern fits nothing, or there is none.
    """
    chosen, used = [], set()
    for name, network in networks.items():
        for key, parameter in network.named_parameters():
            fitting = [pattern for pattern in patterns if fnmatchcase(f"{name}.{key}", pattern)]
            used.update(fitting)
            parameter.requires_grad_(bool(fitting))
            if fitting:
                chosen.append(parameter)
    if unused := [pattern for pattern in patterns if pattern not in used]:
        raise TrainingError(f"trainable pattern {unused[0]!r} fits no parameter of {', '.join(networks)}")
    if not chosen:
        raise TrainingError("task.trainable is empty; name what trains, e.g. *")
    return chosen


def trained_networks(restorer: Restorer, patterns: Sequence[str]) -> tuple[list[nn.Parameter], dict[str, nn.Module]]:
    """What trains of a model: the parameters, and the networks that have any.

    Raises:
        TrainingError: see `choose_trainable`.
    """
    parts = {"unet": restorer.unet, "controlnet": restorer.controlnet, "vae": restorer.vae}
    parts = {name: network for name, network in parts.items() if network is not None}
    trained = choose_trainable(parts, patterns)
    return trained, {name: n for name, n in parts.items() if any(p.requires_grad for p in n.parameters())}
