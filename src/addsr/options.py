"""How a picture is restored."""

import math
from dataclasses import dataclass, field
from numbers import Integral

from addsr.diffusion.defaults import misfit
from addsr.diffusion.samplers.sampler import Sampler
from addsr.errors import AddSRError
from addsr.prompts.options import PromptOptions

MIN_TILE = 128  # output pixels along a side
COMPAT = ("paper", "released")


@dataclass(frozen=True)
class RestoreOptions:
    """How a picture is restored; None stands for the model's own default.

    Attributes:
        scale: factor of the result, from 1 (restore only).
        steps: 1 to 4; SeeSR's sampler 1 to 999, D³SR's 1.
        seed: of all noise.
        psr_weight: 0 to 1, prediction-based self-refinement from the second step on.
        tile: side of the tiles in output pixels; None chooses.
        color_fix: `wavelet`, `adain` or `none`.
        words: prompt and tags, for a model with text.
        guidance_scale: of classifier-free guidance, for a model with text; 1 or less for none.
        start_point: `lr` or `noise`.
        compat: `paper`, or `released` for what the published inference does otherwise, see docs/published.md.
        fidelity: from 0, most detailed, to 1, most faithful, for a model with a set of weights for either.
    """

    scale: float = 4.0
    steps: int | None = None
    seed: int = 0
    psr_weight: float | None = None
    tile: int | None = None
    color_fix: str | None = None
    words: PromptOptions = field(default_factory=PromptOptions)
    guidance_scale: float | None = None
    start_point: str | None = None
    compat: str = "paper"
    fidelity: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale >= 1):
            raise AddSRError(f"scale is {self.scale:g}; it must be 1 or more")
        if not isinstance(self.seed, Integral) or isinstance(self.seed, bool):
            raise AddSRError(f"seed is {self.seed!r}; it must be a whole number")
        if self.tile is not None and self.tile < MIN_TILE:
            raise AddSRError(f"tile is {self.tile}; it must be at least {MIN_TILE}")
        for name in ("psr_weight", "color_fix", "guidance_scale", "start_point"):
            value = getattr(self, name)
            if value is not None and (must := misfit(name, value)):
                raise AddSRError(f"{name} is {value!r}; it must be {must}")
        if self.fidelity is not None and not 0 <= self.fidelity <= 1:
            raise AddSRError(f"fidelity is {self.fidelity:g}; it must be 0 to 1")
        if self.compat not in COMPAT:
            raise AddSRError(f"compat is {self.compat!r}; it must be one of {', '.join(COMPAT)}")

    def check(self, sampler: Sampler, has_faithful: bool) -> None:
        """Whether a model can do it, of which the sampler is given, and whether it has faithful weights beside its own.

        Raises:
            AddSRError: for a number of steps that it does not have, fidelity that it cannot choose, or PSR without AddSR's
                sampler.
        """
        if self.fidelity and not has_faithful:
            raise AddSRError("fidelity cannot be chosen: the model has one set of weights only")
        if self.psr_weight and not sampler.refines:
            raise AddSRError("psr_weight has no effect: only AddSR's sampler refines its own prediction; leave it out")
        if self.steps is not None and (must := misfit("num_inference_steps", self.steps, sampler.name)):
            raise AddSRError(f"steps is {self.steps}; it must be {must}")
