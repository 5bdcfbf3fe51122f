"""addsr restores degraded photographs and enlarges them with diffusion models in one to four steps.

>>> import addsr
>>> up = addsr.load("compact")
>>> up("photo.jpg", scale=4).save("photo_x4.png")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from addsr.checkpoints.published import Beside as Beside
    from addsr.errors import AddSRError as AddSRError
    from addsr.loading import load as load
    from addsr.pipelines.addsr import AddSRPipeline as AddSRPipeline
    from addsr.pipelines.d3sr import D3SRPipeline as D3SRPipeline
    from addsr.pipelines.seesr import SeeSRPipeline as SeeSRPipeline
    from addsr.upscaler import Upscaler as Upscaler

__version__ = "0.1.0"
__all__ = ["AddSRError", "AddSRPipeline", "Beside", "D3SRPipeline", "SeeSRPipeline", "Upscaler", "__version__", "load"]

_HOMES = {
    "AddSRError": "addsr.errors",
    "AddSRPipeline": "addsr.pipelines.addsr",
    "Beside": "addsr.checkpoints.published",
    "D3SRPipeline": "addsr.pipelines.d3sr",
    "SeeSRPipeline": "addsr.pipelines.seesr",
    "Upscaler": "addsr.upscaler",
    "load": "addsr.loading",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: torch and diffusers take seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module 'addsr' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
