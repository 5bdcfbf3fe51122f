"""The second set of weights that a model may bring, and the dial between its own, most detailed, and that, most faithful.

Networks on the way from one training to its adversarial continuation can be interpolated weight by weight (Wang et al.,
ESRGAN, section 3.4): between the two, detail and fidelity change steadily, at any number of steps.
"""

from pathlib import Path
from typing import Any

import torch

from addsr.checkpoints.published import ModelFiles
from addsr.errors import ModelError
from addsr.weights.fit import put_weights
from addsr.weights.reading import read_tensors

FAITHFUL_FILE = "diffusion_pytorch_model.faithful.safetensors"  # diffusers' naming of variants
PARTS = ("unet", "controlnet", "vae")


def faithful_files(files: ModelFiles) -> dict[str, Path]:
    """The faithful weights that a model brings, by network; those that are missing are the same in both sets."""
    paths = {part: files.parts[part] / FAITHFUL_FILE for part in PARTS if part in files.parts}
    return {part: path for part, path in paths.items() if path.is_file()}


def has_faithful(files: ModelFiles) -> bool:
    """Whether a model brings a faithful set of weights, of one network at least."""
    return bool(faithful_files(files))


def move_towards_faithful(restorer: Any, files: ModelFiles, fidelity: float) -> None:
    """Replace a model's weights by those at `fidelity` on the way to its faithful ones.

    Args:
        restorer: the model's, with its own weights, in float32.
        files: of the model.
        fidelity: from 0, its own weights, to 1, the faithful ones.

    Raises:
        ModelError: if the model has no faithful weights, or they are damaged or of another network.
    """
    paths = faithful_files(files)
    if not paths:
        raise ModelError(f"{files.folder}: the model has one set of weights only, so fidelity cannot be chosen")
    for part, path in paths.items():
        network, faithful = getattr(restorer, part), read_tensors(path, torch.float32)
        own = network.state_dict()
        put_weights(network, faithful, path)  # checks every key and shape
        blended = {key: torch.lerp(value, faithful[key], fidelity) for key, value in own.items()}
        put_weights(network, blended, path)
