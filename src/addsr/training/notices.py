"""What a run tells its user before it begins: photos that are left out, and options that do not do what they seem to."""

from collections.abc import Iterator
from typing import Any

from addsr.data.pairs import RealPairs
from addsr.data.photos import Photos, left_out_line
from addsr.errors import TrainingError
from addsr.training.tasks.building import TaskSettings
from addsr.training.tasks.d3sr import D3SRSettings
from addsr.training.tasks.student import StudentSettings
from addsr.training.tasks.teacher import TeacherSettings

LEFT_OUT = {"unreadable": "unreadable", "too_small": "smaller than the crop"}
ONLY_FOR = {
    "teacher": ("student",), "dino": ("student",), "dinov2": ("student",), "discriminator": ("d3sr",), "dists": ("d3sr",),
}  # fmt: skip


def left_out(photos: Photos | None, real: RealPairs | None) -> dict[str, list[str]]:
    """Names of the photos that cannot be trained on, by why."""
    read = [source for source in (photos, *([] if real is None else [real.hr, real.lr])) if source is not None]
    return {why: [name for source in read for name in getattr(source, why)] for why in LEFT_OUT}


def notices(
    config: dict[str, Any],
    settings: TaskSettings,
    names_left_out: dict[str, list[str]],
    *,
    wordless: bool = False,
    emulated: bool = False,
) -> Iterator[str]:
    """What a user may not expect of a run with these settings of its task.

    Args:
        config, settings: of the run and of its task.
        names_left_out: see `left_out`.
        wordless: a model that learns from captions gets none.
        emulated: the device does not compute the precision that is asked for.
    """
    for why, names in names_left_out.items():
        if names:
            yield left_out_line(LEFT_OUT[why], names)
    given, idle = {**config.get("sources", {}), **config}, _idle(settings)
    for name, why in idle.items():
        if given.get(name) is not None:
            yield f"--{name} has no effect, as {why}"
    if emulated:
        yield "this CPU emulates bfloat16, several times slower than float32: --set loop.precision=fp32 is faster"
    if wordless:
        yield "no photo has a caption (NAME.txt beside NAME.jpg; addsr tag --write makes them): only the empty prompt trains"
    if isinstance(settings, StudentSettings) and "dino" not in idle and "dinov2" not in given:
        yield "the discriminator does not see LR: --dinov2 FOLDER would condition it, as in the paper"


def _idle(settings: TaskSettings) -> dict[str, str]:
    """Options that a task's settings leave without effect, and why."""
    if isinstance(settings, TeacherSettings):
        return {}
    idle = {}
    judge, options = (
        ("diffusion", ("discriminator",)) if isinstance(settings, D3SRSettings) else ("dino", ("dino", "dinov2"))
    )
    if not settings.adversarial:
        idle |= dict.fromkeys(options, "task.adversarial is 0")
    elif settings.discriminator != judge:
        idle |= dict.fromkeys(options, f"task.discriminator is {settings.discriminator}")
    if isinstance(settings, StudentSettings) and not settings.distillation:
        idle["teacher"] = "task.distillation is 0"
    if isinstance(settings, D3SRSettings) and not settings.perceptual.endswith("dists"):
        idle["dists"] = f"task.perceptual is {settings.perceptual}"
    return idle


def check_words(config: dict[str, Any]) -> None:
    """Raises TrainingError for something given that this kind of task has no use for."""
    kind = config.get("task", {}).get("kind", "student")
    given = {**config.get("sources", {}), **config}
    for name, kinds in ONLY_FOR.items():
        if given.get(name) is not None and kind not in kinds:
            raise TrainingError(
                f"--{name} has no effect, as the run is of task.kind {kind} and not {' or '.join(kinds)}"
            )
