"""What a run tells its user before it begins."""

import pytest

from addsr.training.notices import notices
from addsr.training.tasks.building import task_settings


@pytest.mark.parametrize(
    ("task", "given", "line"),
    [
        ({}, {"teacher": "T"}, "--teacher has no effect, as task.distillation is 0"),
        ({"discriminator": "dino"}, {"dino": "D"}, "--dino has no effect, as task.adversarial is 0"),
        ({"adversarial": 0.1}, {"dinov2": "D"}, "--dinov2 has no effect, as task.discriminator is patch"),
        ({"adversarial": 0.1, "discriminator": "dino"}, {"dino": "D"}, "--dinov2 FOLDER would condition it"),
        ({"kind": "d3sr", "perceptual": "lpips"}, {"dists": "D"}, "--dists has no effect, as task.perceptual is lpips"),
        ({"kind": "d3sr", "discriminator": "cnn"}, {"discriminator": "D"}, "as task.discriminator is cnn"),
    ],
)
def test_options_that_the_settings_leave_without_effect_are_named(task, given, line):
    config = {"task": task, "sources": {}} | given
    (told,) = notices(config, task_settings(config), {})
    assert line in told


@pytest.mark.parametrize(
    ("task", "given"),
    [
        ({}, {}),
        ({"distillation": 1.0}, {"teacher": "T"}),
        ({"adversarial": 0.1, "discriminator": "dino"}, {"dino": "D", "dinov2": "D"}),
        ({"kind": "d3sr"}, {"dists": "D", "discriminator": "D"}),
        ({"kind": "teacher"}, {}),
    ],
)
def test_options_with_effect_are_not(task, given):
    config = {"task": task} | given
    assert not list(notices(config, task_settings(config), {}))


def test_a_model_that_learns_from_captions_and_gets_none_is_said():
    config = {"task": {"kind": "teacher"}}
    (told,) = notices(config, task_settings(config), {}, wordless=True)
    assert "no photo has a caption" in told


def test_a_precision_that_the_cpu_emulates_is_said():
    config = {"task": {"kind": "teacher"}}
    (told,) = notices(config, task_settings(config), {}, emulated=True)
    assert "loop.precision=fp32" in told
