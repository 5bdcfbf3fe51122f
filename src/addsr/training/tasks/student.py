"""Task: AddSR's student for the four timesteps. Reconstruction, distillation from a teacher and an adversary, each a switch.

A share of the batches trains a later step beside the first (see `rollout`), and the losses see both steps' pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import partial

import torch
from torch import nn

from addsr.data.draws import Draws
from addsr.diffusion.coder import from_symmetric
from addsr.diffusion.restorer import Restorer
from addsr.diffusion.schedule import STUDENT_TIMESTEPS, add_noise, at_student_timesteps
from addsr.errors import TrainingError
from addsr.losses.adversarial import clamped, hinge_discriminator_loss, hinge_generator_loss
from addsr.losses.detail import excess_and_missing_detail
from addsr.losses.distillation import GAMMAS, TEACHER_WEIGHTS, teacher_weight, timestep_adapting_weight
from addsr.losses.grid import excess_of_steps, grid_distance
from addsr.losses.lpips import SqueezeLPIPS
from addsr.losses.reconstruction import balanced, l1_at_contrasts, l1_of_the_known, shifted_lpips
from addsr.losses.scene_statistics import scene_statistics_distance
from addsr.losses.spectrum import spectral_distance
from addsr.losses.weave import excess_of_weave
from addsr.training.adversary import Adversary
from addsr.training.context import TextEncoder, context_of
from addsr.training.settings import one_of, ranged
from addsr.training.task import Batch, Moment, Player
from addsr.training.tasks.rollout import Rollout, StudentSteps, latent_noise, predict_picture
from addsr.training.trainable import trained_networks


@dataclass(frozen=True)
class StudentSettings:
    """Weights of the losses and the shares of what is trained.

    Attributes:
        l1: weight of L1 in [0, 1] to HR.
        contrast: further weight of L1 where HR spans much luminance within a few pixels, as letters and thin lines do.
        known: further weight of L1 between the pictures and HR as small as LR.
        lpips, lpips_final: weight of LPIPS beside it, at the start and at the end of the run. Large at the start it is
            pleased with a texture of PixelShuffle's grid long before anything is restored.
        grain, detail: weights of fine detail in excess of what should be there, and of what is missing of it; see
            `addsr.losses.detail`.
        statistics: weight of the distance between the detail's statistics and HR's; see `addsr.losses.scene_statistics`.
        grid: weight of the unevenness of detail over the decoder's cells; see `addsr.losses.grid`.
        seams: weight of steps between pixels in excess of HR's, at each place of a cell: `excess_of_steps`, see there.
        spectrum: weight of the distance between the detail's power spectrum and HR's; see `addsr.losses.spectrum`.
        weave: weight of canvas beyond HR's, strokes of both axes, or diagonals, over one another; see `addsr.losses.weave`.
        doubt, doubt_later: how much less detail is asked for where little is known, see there, of the first step and of
            later ones; 0 asks for all of HR's. Less doubt later lets each step add detail.
        detail_by_step: factors of `detail` and `statistics` at 999, 749, 499 and 249: rising ones leave the first step close
            to what is known, and let each further one add detail.
        balance: see `addsr.losses.reconstruction.balanced`.
        autoencoder: weight of L1 of encoded and decoded HR, which keeps the latents meaningful while the decoder trains.
        refine: share of the iterations that train a later step too.
        refine_from: progress of the run (0..1) before a later step is trained at all.
        psr: prediction-based self-refinement; without it the later steps' condition stays LR (Table 5), and the model that
            the run leaves has a PSR weight of 0.
        psr_weights: lowest and highest weight of the prediction in that condition, drawn for each picture and kept for its
            steps; the model that the run leaves takes `defaults.psr_weight`.
        hr_latents: share of the later steps that start from noised HR latents instead of the student's own x0.
        distillation: weight of the distance to the teacher's x0 (Eq. 3); 0 for no teacher.
        hr_conditioned, hr_tokens: the teacher's condition picture is HR, and so is what its representation tokens are of
            (image-quality-adjusted, section 3.2), else LR; the two columns of Table 4.
        timestep_adapting: weight the distillation by gamma of the student's timestep (section 3.4), else by 1.
        gammas: for 999, 749, 499, 249.
        teacher_weight: c(t): `sqrt_alphas_cumprod` or `uniform`.
        teacher_timesteps: the teacher is asked at so many random timesteps a picture.
        adversarial: lambda of the adversarial loss; 0 for none.
        adversarial_weight: `fixed`: lambda multiplies the loss as it is (the mean over logits, as the paper's 0.02 beside
            squared distances in [0, 1]); `adaptive`: lambda is the norm of its gradient at the picture in units of the
            other losses'.
        adversarial_from: progress before the adversarial loss; the discriminator alone starts a twentieth earlier.
        discriminator: `patch`, `squeeze` (heads on SqueezeNet features) or `dino` (heads on DINO v1 ViT-S/16).
        discriminator_rate: the discriminator's learning rate in units of the loop's.
        null_text: share of the pictures whose prompt is empty, where there is a text encoder.
        trainable: name patterns of the parameters that train, see `choose_trainable`.
    """

    l1: float = 1.0
    contrast: float = 0.0
    known: float = 0.0
    lpips: float = 0.15
    lpips_final: float = 0.5
    grain: float = 0.0
    detail: float = 0.0
    statistics: float = 0.0
    grid: float = 0.0
    seams: float = 0.0
    spectrum: float = 0.0
    weave: float = 0.0
    doubt: float = 1 / 3
    doubt_later: float = 1 / 3
    detail_by_step: Sequence[float] = (1.0, 1.0, 1.0, 1.0)
    balance: float = 0.02
    autoencoder: float = 0.5
    refine: float = 0.25
    refine_from: float = 0.4
    psr: bool = True
    psr_weights: Sequence[float] = (0.0, 1.0)
    hr_latents: float = 0.2
    distillation: float = 0.0
    hr_conditioned: bool = True
    hr_tokens: bool = True
    timestep_adapting: bool = True
    gammas: Sequence[float] = GAMMAS
    teacher_weight: str = "sqrt_alphas_cumprod"
    teacher_timesteps: int = 1
    adversarial: float = 0.0
    adversarial_weight: str = "adaptive"
    adversarial_from: float = 0.0
    discriminator: str = "patch"
    discriminator_rate: float = 0.5
    null_text: float = 0.5
    trainable: Sequence[str] = ("*",)

    def __post_init__(self) -> None:
        shares = ("refine", "refine_from", "hr_latents", "adversarial_from", "null_text")
        for setting in fields(self):
            if setting.type is float:  # a share, or a weight
                ranged(f"task.{setting.name}", getattr(self, setting.name), 0, 1 if setting.name in shares else None)
        steps = len(STUDENT_TIMESTEPS)
        for name, count, most in (("gammas", steps, None), ("detail_by_step", steps, None), ("psr_weights", 2, 1)):
            values = getattr(self, name)
            if len(values) != count:
                raise TrainingError(f"task.{name} is {list(values)}; it must have {count} values")
            for value in values:
                ranged(f"task.{name}", value, 0, most)
        one_of("task.teacher_weight", self.teacher_weight, TEACHER_WEIGHTS)
        one_of("task.adversarial_weight", self.adversarial_weight, ("fixed", "adaptive"))
        one_of("task.discriminator", self.discriminator, ("patch", "squeeze", "dino"))
        ranged("task.teacher_timesteps", self.teacher_timesteps, 1, None)


@dataclass
class StudentTask:
    """The generator's player trains the student, the discriminator's the discriminator.

    Args:
        student: whose networks train.
        settings: see there.
        lpips: the loss network; needed for `lpips` above 0.
        teacher: needed for `distillation` above 0.
        discriminator: called with (pictures, LR, draws); needed for `adversarial` above 0.
        encode_text: for a student with text attention.
    """

    student: Restorer
    settings: StudentSettings
    lpips: SqueezeLPIPS | None = None
    teacher: Restorer | None = None
    discriminator: nn.Module | None = None
    encode_text: TextEncoder | None = None
    networks: dict[str, nn.Module] = field(init=False)
    averaged: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._trained, self.networks = trained_networks(self.student, self.settings.trainable)
        if self.teacher is not None and "vae" in self.networks:
            message = "task.trainable has the autoencoder, whose latents the teacher reads: leave vae.* out of it"
            raise TrainingError(f"{message}, e.g. --set 'task.trainable=[\"unet.*\"]'")
        self.averaged = tuple(self.networks)
        self._adversary = Adversary.of(
            self.discriminator, self.settings, hinge_generator_loss, hinge_discriminator_loss
        )
        if self.discriminator is not None:
            self.networks["discriminator"] = self.discriminator
        self._judged: Rollout | None = None  # what the discriminator's turn looks at

    @property
    def steps(self) -> StudentSteps:
        """The student's steps under the settings."""
        settings = self.settings
        psr, shares = (settings.psr, settings.psr_weights), (settings.hr_latents, settings.null_text)
        return StudentSteps(self.student, *psr, *shares, self.encode_text)

    def players(self) -> dict[str, Player]:
        players = {"generator": Player(self._trained)}
        if self._adversary is not None:
            players["discriminator"] = self._adversary.player(self.settings.discriminator_rate, betas=(0.0, 0.99))
        return players

    def losses(self, player: str, batch: Batch, moment: Moment) -> dict[str, torch.Tensor] | None:
        if player == "discriminator":
            return self._discriminator_losses(moment)
        refined = moment.progress >= self.settings.refine_from and moment.draws.shared_uniform() < self.settings.refine
        rollout = self.steps(batch, moment.draws, refined=refined)
        losses = self._reconstruction(rollout, moment)
        if self.settings.distillation:
            losses["distillation"] = self._distillation(rollout, moment.draws)
            losses["total"] = losses["total"] + self.settings.distillation * losses["distillation"]
        adversary = self._adversary
        if adversary is not None and adversary.counts(moment.progress):
            score = partial(self._judge, clamped(rollout.pictures), rollout.lr, moment.draws)
            losses |= adversary.against(score, rollout.pictures, losses["total"], moment)
        if self.settings.autoencoder:  # after the adversary, whose weight must not follow it
            losses["autoencoder"] = self._autoencoder(rollout.hr[: len(batch["hr"])], moment.draws)
            losses["total"] = losses["total"] + self.settings.autoencoder * losses["autoencoder"]
        self._judged = rollout if adversary is not None and adversary.trains(moment.progress) else None
        return losses

    # --- losses

    def _reconstruction(self, rollout: Rollout, moment: Moment) -> dict[str, torch.Tensor]:
        settings = self.settings
        l1 = (rollout.pictures - rollout.hr).abs().mean((1, 2, 3))
        total, named = settings.l1 * l1, {"l1": l1}
        if self.lpips is not None:
            weight = settings.lpips + moment.progress * (settings.lpips_final - settings.lpips)
            named["lpips"] = shifted_lpips(self.lpips, rollout.pictures, rollout.hr, moment.draws)
            total = total + weight * named["lpips"]
        first = rollout.timestep == STUDENT_TIMESTEPS[0]
        detailed = at_student_timesteps(rollout.timestep, settings.detail_by_step)
        if settings.grain or settings.detail:
            doubt = torch.where(first, settings.doubt, settings.doubt_later)
            named["grain"], named["detail"] = excess_and_missing_detail(rollout.pictures, rollout.hr, doubt)
            total = total + settings.grain * named["grain"] + settings.detail * detailed * named["detail"]
        if settings.statistics:
            named["statistics"] = scene_statistics_distance(rollout.pictures, rollout.hr)
            total = total + settings.statistics * detailed * named["statistics"]
        cell = self.student.vae_scale_factor
        for name, weight, distance in (
            ("contrast", settings.contrast, l1_at_contrasts),
            ("known", settings.known, l1_of_the_known),
            ("grid", settings.grid, partial(grid_distance, cell=cell)),
            ("seams", settings.seams, partial(excess_of_steps, cell=cell)),
            ("spectrum", settings.spectrum, spectral_distance),
            ("weave", settings.weave, excess_of_weave),
        ):
            if weight:
                named[name] = distance(rollout.pictures, rollout.hr)
                total = total + weight * named[name]
        losses = {"total": balanced(total, settings.balance).mean()}
        losses |= {name: values[first].mean() for name, values in named.items()}
        if not first.all():
            losses |= {f"{name}_later": values[~first].mean() for name, values in named.items()}
        return losses

    def _autoencoder(self, hr: torch.Tensor, draws: Draws) -> torch.Tensor:
        """L1 of HR through the autoencoder, with some noise on the latents, of a fourth of the pictures."""
        keep, spread, noise = (
            draws.uniform() < 0.25,
            0.1 * draws.uniform(1, 1, 1),
            latent_noise(self.student, hr, draws),
        )
        if not keep.any():
            return hr.new_zeros(())
        vae = self.student.vae
        latents = vae.encode(hr[keep] * 2 - 1).latent_dist.mode() + (spread * noise)[keep]
        restored = from_symmetric(vae.decode(latents).sample)
        return (restored - hr[keep]).abs().mean((1, 2, 3)).sum() / (0.25 * len(hr))

    def _distillation(self, rollout: Rollout, draws: Draws) -> torch.Tensor:
        """Squared distance, in [0, 1], of the student's pictures to the teacher's one-step ones from the student's x0
        noised again (Eq. 3). No gradient reaches the student through the teacher.
        """
        settings, teacher = self.settings, self.teacher
        assert teacher is not None
        condition = rollout.hr if settings.hr_conditioned else rollout.lr
        described = rollout.hr if settings.hr_tokens else rollout.lr
        context = context_of(teacher, described, rollout.prompts, self.encode_text)
        total = rollout.pictures.new_zeros(())
        copies = len(rollout.x0) // len(draws)  # 2 where a later step is trained
        for _ in range(settings.teacher_timesteps):
            with torch.no_grad():
                timestep = draws.integers(len(teacher.schedule.alphas_cumprod), copies).T.flatten()
                noise = torch.cat([latent_noise(self.student, rollout.hr, draws) for _ in range(copies)])
                latents = add_noise(rollout.x0.detach(), noise, timestep, teacher.schedule.alphas_cumprod)
                _, target = predict_picture(teacher, latents, timestep, condition, context)
            distance = (target.clamp(0, 1) - rollout.pictures).square().mean((1, 2, 3))
            total = total + distance * teacher_weight(
                timestep, teacher.schedule.alphas_cumprod, settings.teacher_weight
            )
        if settings.timestep_adapting:
            total = total * timestep_adapting_weight(rollout.timestep, settings.gammas)
        return total.mean() / settings.teacher_timesteps

    def _discriminator_losses(self, moment: Moment) -> dict[str, torch.Tensor] | None:
        judged, self._judged = self._judged, None
        if judged is None or self._adversary is None:
            return None
        real = self._judge(judged.hr, judged.lr, moment.draws)
        fake = self._judge(judged.pictures.detach().clamp(0, 1), judged.lr, moment.draws)
        return self._adversary.learns(real, fake)

    def _judge(self, pictures: torch.Tensor, lr: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Scores of pictures of one or two steps: each step's half is judged by itself, as draws are a picture's own."""
        assert self.discriminator is not None
        size = len(draws)
        halves = zip(pictures.split(size), lr.split(size), strict=True)
        return torch.cat([self.discriminator(some, their_lr, draws) for some, their_lr in halves])
