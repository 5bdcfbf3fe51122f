"""Each element of the student's and the teacher's training is one switch that does what it says."""

import warnings
from dataclasses import replace

import pytest
import torch

from addsr.data.draws import Draws
from addsr.errors import TrainingError
from addsr.prompts.text import PromptTooLongWarning
from addsr.training.captions import CaptionEncoder
from addsr.training.task import Moment
from addsr.training.tasks.student import StudentSettings, StudentTask
from addsr.training.tasks.teacher import TeacherSettings, TeacherTask
from tests.training.runs import EVERYTHING, student_task, tiny_restorer

OFF = {"l1": 0.0, "lpips": 0.0, "lpips_final": 0.0, "balance": 0.0, "autoencoder": 0.0}


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    hr, lr = (torch.rand(3, 3, 64, 64, generator=generator) for _ in range(2))
    return {"hr": hr, "lr": lr, "place": torch.arange(3), "prompt": [""] * 3}


def moment(progress=1.0, start=0):
    return Moment(progress, Draws(0, start, range(3)))


def spied(restorer, seen):
    """Note timestep and condition of every evaluation."""
    predict = restorer.predict

    def spy(latents, timestep, condition, *context):
        seen.append((timestep, condition))
        return predict(latents, timestep, condition, *context)

    restorer.predict = spy


def losses_of(loss_network, batch, **settings):
    return student_task(loss_network, **settings).losses("generator", batch, moment())


def test_all_parts_are_named_and_the_total_is_theirs(lpips_weights, batch):
    losses = losses_of(lpips_weights, batch, refine=1, balance=0, adversarial=0)
    first = losses["l1"] + 0.5 * losses["lpips"]
    later = losses["l1_later"] + 0.5 * losses["lpips_later"]
    expected = (first + later) / 2 + losses["distillation"] + 0.5 * losses["autoencoder"]
    torch.testing.assert_close(losses["total"], expected)


def test_doubt_lessens_the_detail_asked_for_at_its_own_step(lpips_weights, batch):
    at_all, doubted, doubted_later = (
        losses_of(lpips_weights, batch, refine=1, grain=1, detail=1, doubt=doubt, doubt_later=later, adversarial=0)
        for doubt, later in ((0, 0), (0.5, 0), (0, 0.5))
    )
    assert doubted["detail"] < at_all["detail"] == doubted_later["detail"]
    assert doubted_later["detail_later"] < at_all["detail_later"] == doubted["detail_later"]


def test_each_step_has_its_own_factor_of_detail(lpips_weights, batch):
    settings = {"refine": 1, "detail": 2, "statistics": 3, "adversarial": 0, "distillation": 0}
    losses = losses_of(lpips_weights, batch, detail_by_step=[0.5, 4, 4, 4], **OFF | settings)
    first = 0.5 * (2 * losses["detail"] + 3 * losses["statistics"])
    later = 4 * (2 * losses["detail_later"] + 3 * losses["statistics_later"])
    torch.testing.assert_close(losses["total"], (first + later) / 2)


def test_the_first_caption_that_is_cut_is_said_and_no_other():
    def encode(prompts):
        for prompt in prompts:
            if len(prompt) > 3:
                warnings.warn(f"the prompt {prompt} is cut", PromptTooLongWarning, stacklevel=2)
        return torch.zeros(len(prompts), 77, 2)

    captions = CaptionEncoder(encode)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for prompts in (["a"], ["meadow", "forest"], ["forest", "b"]):
            assert captions(prompts).shape == (len(prompts), 77, 2)
    assert [str(warning.message).split(";")[0] for warning in said] == ["the prompt meadow is cut"]


@pytest.mark.parametrize("name", ["contrast", "known", "grid", "seams", "spectrum", "weave"])
def test_further_distances_to_hr_count_at_every_step(name, lpips_weights, batch):
    settings = {"refine": 1, name: 2, "adversarial": 0, "distillation": 0}
    losses = losses_of(lpips_weights, batch, **OFF | settings)
    assert losses[name] > 0
    torch.testing.assert_close(losses["total"], losses[name] + losses[f"{name}_later"])


def test_no_adversary_without_its_weight(lpips_weights, batch):
    task = student_task(lpips_weights, adversarial=0)
    assert "discriminator" not in task.players()
    assert "adversarial" not in task.losses("generator", batch, moment())


def test_the_discriminator_begins_a_little_before_the_adversarial_loss(lpips_weights, batch):
    task = student_task(lpips_weights, adversarial_from=0.5)
    for progress, trains, judges in ((0.4, False, False), (0.47, True, False), (0.5, True, True)):
        losses = task.losses("generator", batch, moment(progress))
        assert ("adversarial" in losses) is judges
        assert (task.losses("discriminator", batch, moment(progress)) is not None) is trains


def test_the_generators_turn_leaves_no_gradient_in_the_discriminator(lpips_weights, batch):
    task = student_task(lpips_weights)
    task.losses("generator", batch, moment())["total"].backward()
    assert all(parameter.grad is None for parameter in task.discriminator.parameters())
    assert all(parameter.grad is None for parameter in task.teacher.unet.parameters())
    task.losses("discriminator", batch, moment())["total"].backward()
    assert all(parameter.grad is not None for parameter in task.discriminator.parameters())


def test_every_level_of_the_unet_learns(lpips_weights, batch):
    """torch.compile lost the gradients of all levels but the finest once, and nothing said so."""
    task = student_task(lpips_weights, distillation=0, adversarial=0)
    task.losses("generator", batch, moment())["total"].backward()
    parameters = task.student.unet.named_parameters()
    assert not [name for name, parameter in parameters if parameter.grad is None or not parameter.grad.any()]


def test_a_fixed_weight_is_lambda(lpips_weights, batch):
    fixed = losses_of(lpips_weights, batch, **OFF, adversarial=0.02, adversarial_weight="fixed")
    torch.testing.assert_close(fixed["total"], fixed["distillation"] + 0.02 * fixed["adversarial"])


def test_the_teacher_sees_hr_or_lr(lpips_weights, batch):
    """Its picture and its tokens are a switch each: the columns of Table 4."""
    for picture_of, tokens_of in (("hr", "hr"), ("hr", "lr"), ("lr", "hr"), ("lr", "lr")):
        switches = {"hr_conditioned": picture_of == "hr", "hr_tokens": tokens_of == "hr"}
        task = student_task(lpips_weights, **OFF, refine=0, adversarial=0, **switches)
        pictures, described = [], []
        spied(task.teacher, pictures)
        task.teacher.image_encoder = torch.nn.Identity()
        task.teacher.encode_image = described.append
        task.losses("generator", batch, moment())
        assert torch.equal(pictures[0][1], batch[picture_of])
        assert torch.equal(described[0], batch[tokens_of])


def test_timestep_adapting_weights_the_distillation(lpips_weights, batch):
    only = {**OFF, "refine": 0, "adversarial": 0}
    adapted = losses_of(lpips_weights, batch, **only)["distillation"]
    plain = losses_of(lpips_weights, batch, **only, timestep_adapting=False)["distillation"]
    torch.testing.assert_close(adapted, 0.5 * plain)  # one step at 999


def test_refinement_mixes_the_own_picture_into_the_condition_in_the_range_of_lr(lpips_weights, batch):
    for psr in (True, False):
        task = student_task(lpips_weights, refine=1, psr=psr, distillation=0, adversarial=0)
        seen = []
        spied(task.student, seen)
        task.losses("generator", batch, moment())
        (first, lr), (later, condition) = seen[0], seen[-1]
        assert first.tolist() == [999] * 3
        assert set(later.tolist()) <= {749, 499, 249}
        assert torch.equal(lr, batch["lr"])
        assert torch.equal(condition, lr) is not psr
        assert 0 <= condition.min() <= condition.max() <= 1


def test_the_weight_of_the_own_picture_is_one_for_all_steps(lpips_weights, batch):
    weighed = {"refine": 1, "distillation": 0, "adversarial": 0, "hr_latents": 0.0}
    task = student_task(lpips_weights, **weighed, psr_weights=[1.0, 1.0])
    seen, pictures = [], []
    spied(task.student, seen)
    decode = task.student.decode_latents
    task.student.decode_latents = lambda *args: pictures.append(decode(*args)) or pictures[-1]
    task.losses("generator", batch, moment())
    (_, _), *later = seen
    made = torch.cat(pictures).clamp(0, 1)
    for _, condition in later:  # a picture that was made, and nothing of LR
        for one in condition:
            assert min((one - other).abs().max() for other in made) < 1e-6
    with pytest.raises(TrainingError, match=r"task\.psr_weights is 2; it must be 0 to 1"):
        student_task(lpips_weights, **weighed, psr_weights=[0.0, 2])


def test_refinement_refreshes_the_tokens(lpips_weights, batch):
    task, described = student_task(lpips_weights, refine=1, distillation=0, adversarial=0), []
    task.student.image_encoder = torch.nn.Identity()
    task.student.encode_image = lambda picture: described.append(picture)
    seen = []
    spied(task.student, seen)
    task.losses("generator", batch, moment())
    assert len(described) == len(seen) > 1
    assert all(torch.equal(picture, condition) for picture, (_, condition) in zip(described, seen, strict=True))


def test_predictions_are_float32_under_autocast(batch):
    model = tiny_restorer()
    latents = torch.zeros(3, 4, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.predict(latents, 999, batch["lr"]).dtype == torch.float32


@pytest.mark.parametrize("start_point", ["lr", "noise"])
def test_the_first_step_starts_where_inference_does(start_point, lpips_weights, batch):
    task, starts = student_task(lpips_weights, refine=0, distillation=0, adversarial=0), []
    task.student.defaults = replace(task.student.defaults, start_point=start_point)
    predict = task.student.predict
    task.student.predict = lambda latents, *others: starts.append(latents) or predict(latents, *others)
    for lr in (batch["lr"], 1 - batch["lr"]):
        task.losses("generator", {**batch, "lr": lr}, moment())
    assert torch.equal(*starts) is (start_point == "noise")


@pytest.mark.parametrize("null_text", [0.0, 1.0])
def test_the_share_of_null_text(null_text, lpips_weights, batch):
    task, asked = student_task(lpips_weights, adversarial=0, refine=0, distillation=0, null_text=null_text), []
    task.encode_text = lambda prompts: asked.append(list(prompts))
    task.losses("generator", {**batch, "prompt": ["a", "b", "c"]}, moment())
    assert asked[0] == (["", "", ""] if null_text else ["a", "b", "c"])


def test_hr_is_encoded_only_where_a_step_starts_from_it(lpips_weights, batch):
    for refine, hr_latents, expected in ((0, 1.0, 0), (1, 0.0, 0), (1, 1.0, 1)):
        task = student_task(
            lpips_weights, refine=refine, hr_latents=hr_latents, distillation=0, adversarial=0, autoencoder=0
        )
        task.student.defaults = replace(task.student.defaults, start_point="noise")
        encoded, encode = [], task.student.encode_latents
        task.student.encode_latents = lambda *args, encode=encode, encoded=encoded: encoded.append(1) or encode(*args)
        task.losses("generator", batch, moment())
        assert len(encoded) == expected


def test_a_later_step_is_reached_step_by_step(lpips_weights, batch):
    """As at inference: what is trained at 249 has been at 999, 749 and 499, and only the two ends have gradients."""
    reached = set()
    for start in range(4):
        task = student_task(lpips_weights, refine=1, hr_latents=0.0, distillation=0, adversarial=0)
        steps = []
        predict = task.student.predict

        def spy(latents, timestep, condition, *context, predict=predict, steps=steps):
            prediction = predict(latents, timestep, condition, *context)
            steps.append((timestep.tolist(), prediction.requires_grad))
            return prediction

        task.student.predict = spy
        places = range(3 * start, 3 * start + 3)
        task.losses("generator", batch, Moment(1.0, Draws(0, start, places)))
        (_, first), *between, (later, last) = steps
        assert first
        assert last
        assert not any(gradient for _, gradient in between)
        expected = [[t] * sum(end < t for end in later) for t in (749, 499) if any(end < t for end in later)]
        assert [timesteps for timesteps, _ in between] == expected
        reached.update(later)
    assert reached == {749, 499, 249}


def test_steps_on_the_way_are_a_pictures_own(lpips_weights, batch):
    """Alone or in a batch, a picture's later step starts from the same x0."""
    task = student_task(lpips_weights, refine=1, hr_latents=0.0, distillation=0, adversarial=0)
    with torch.no_grad():
        whole = task.steps(batch, Draws(0, 0, range(3)), refined=True)
        for place in range(3):
            one = {name: value[place : place + 1] for name, value in batch.items()}
            alone = task.steps(one, Draws(0, 0, [place]), refined=True)
            assert alone.timestep.tolist() == whole.timestep[place::3].tolist()
            torch.testing.assert_close(alone.pictures, whole.pictures[place::3], atol=1e-4, rtol=1e-4)


def test_distillation_leaves_the_autoencoder_alone(lpips_weights):
    with pytest.raises(TrainingError, match="has the autoencoder, whose latents the teacher reads"):
        student_task(lpips_weights, trainable=["*"])
    with pytest.raises(TrainingError, match="has the autoencoder, whose latents the teacher reads"):
        student_task(lpips_weights, trainable=["unet.*", "vae.encoder.*"])


def test_teacher_and_student_get_the_same_text(lpips_weights, batch):
    task, asked = student_task(lpips_weights, adversarial=0, refine=0, null_text=0.5), []
    task.encode_text = lambda prompts: asked.append(list(prompts))
    for start in range(4):
        task.losses("generator", {**batch, "prompt": ["a", "b", "c"]}, moment(start=start))
    assert asked[0::2] == asked[1::2]


def test_trainable_patterns(lpips_weights):
    task = student_task(lpips_weights, trainable=["unet.up_blocks.*"], adversarial=0)
    assert set(task.networks) == {"unet"}
    trained = {name for name, parameter in task.student.unet.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(name.startswith("up_blocks.") for name in trained)
    with pytest.raises(TrainingError, match=r"'unet\.sidewards\.\*' fits no parameter"):
        student_task(lpips_weights, trainable=["unet.sidewards.*"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"refine": 2}, "task.refine is 2; it must be 0 to 1"),
        ({"lpips": -1}, "task.lpips is -1; it must be at least 0"),
        ({"discriminator": "resnet"}, "it must be one of patch, squeeze, dino"),
        ({"teacher_timesteps": 0}, "at least 1"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(TrainingError, match=message):
        StudentSettings(**settings)


def test_the_student_works_without_any_loss_network(batch):
    settings = StudentSettings(**{**EVERYTHING, "distillation": 0, "adversarial": 0})
    losses = StudentTask(tiny_restorer(), settings).losses("generator", batch, moment())
    assert "lpips" not in losses


@pytest.mark.parametrize("prediction_type", ["sample", "epsilon", "v_prediction"])
def test_the_teacher_learns(prediction_type, batch):
    model = tiny_restorer()
    model.schedule = replace(model.schedule, prediction_type=prediction_type)
    task = TeacherTask(model, TeacherSettings(hr_conditions=0.5))
    assert set(task.networks) == {"unet"}
    optimizer = torch.optim.Adam(task.players()["teacher"].parameters, lr=3e-3)
    losses = []
    for start in range(0, 90, 3):
        loss = task.losses("teacher", batch, Moment(0.0, Draws(0, start, range(start, start + 3))))
        optimizer.zero_grad()
        loss["total"].backward()
        optimizer.step()
        losses.append(loss["total"].item())
    assert sum(losses[-10:]) < sum(losses[:10])


def test_a_share_of_the_teachers_conditions_is_hr(batch):
    for share in (0.0, 1.0):
        model, seen = tiny_restorer(), []
        spied(model, seen)
        named = TeacherTask(model, TeacherSettings(hr_conditions=share)).losses("teacher", batch, moment())
        assert torch.equal(seen[0][1], batch["hr"] if share else batch["lr"])
        assert ("error_hr" in named) is bool(share)
