"""What restoring a picture will take on this machine: tiles, memory and seconds, before anything is restored."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from addsr.diffusion.guidance import is_guided
from addsr.diffusion.restorer import Runs
from addsr.diffusion.tiled import Tiling, plan_tiles
from addsr.evaluation.stages import Evaluation, Model, evaluations
from addsr.image.conditioning import MODEL_SCALE, conditioning_size
from addsr.image.picture import Picture
from addsr.options import RestoreOptions
from addsr.runtime.cost import Cost, measure
from addsr.upscaler import Upscaler

EFFICIENCY = 0.6  # of a network, in units of its convolutions' own speed: norms and activations take the rest


@dataclass(frozen=True)
class Expected:
    """Expected of a restoration: size of the result and of its tiles in pixels, bytes of the device at the peak, seconds."""

    height: int
    width: int
    tiles: int
    tile: int
    weights: int
    peak: int
    seconds: float

    def text(self) -> str:
        """For people."""
        tiles = "1 tile" if self.tiles == 1 else f"{self.tiles} tiles"
        memory = f"{self.peak / 1e9:.2f} GB at the peak ({self.weights / 1e9:.2f} GB of it weights)"
        return f"{self.width}×{self.height} in {tiles} of {self.tile} pixels, {memory}, about {_time(self.seconds)}"

    def row(self) -> dict[str, Any]:
        """For programs."""
        return {
            "width": self.width,
            "height": self.height,
            "tiles": self.tiles,
            "tile": self.tile,
            "weights_bytes": self.weights,
            "peak_bytes": self.peak,
            "seconds": round(self.seconds, 1),
        }


class Planner:
    """Counts on the meta device what one tile costs, and times the device once.

    Args:
        upscaler: the loaded model.
    """

    def __init__(self, upscaler: Upscaler) -> None:
        self.upscaler, restorer = upscaler, upscaler.restorer
        groups = [[network] for network in restorer.networks]
        words = None if upscaler.describer is None else upscaler.describer.encode_prompt
        if words is not None and isinstance(words.text_encoder, nn.Module):  # else it is gone when memory is short
            groups.append([words.text_encoder])
        offloaded = list(restorer.offload.groups.values())
        sizes = [sum(_bytes(network) for network in group) for group in offloaded or groups]
        self._weights = max(sizes) if offloaded else sum(sizes)
        self._meta = Model(restorer).on_meta()  # text takes next to nothing
        self._speed = macs_per_second(restorer.placement.device, restorer.placement.dtype)
        self._known: dict[tuple[str, bool, int, int], Cost] = {}

    def __call__(self, picture: Picture, options: RestoreOptions) -> Expected:
        """What restoring `picture` takes.

        Raises:
            AddSRError: if the model cannot do what the options say, or the picture is too large.
        """
        upscaler, restorer = self.upscaler, self.upscaler.restorer
        options.check(restorer.sampler, upscaler.dial is not None)
        height, width = upscaler.output_size(picture, options.scale)
        lr = upscaler.working_size(picture.size, options.scale)
        if restorer.is_local:
            full = lr[0] * MODEL_SCALE, lr[1] * MODEL_SCALE
        else:
            full = conditioning_size(*lr, restorer.vae_scale_factor, released=options.compat == "released")
        side, _ = upscaler.runner.tile_sides(options)
        asked = upscaler.asked(options)
        runs = restorer.runs(asked)
        coded: dict[str, tuple[Evaluation, Cost]] = {}
        if restorer.is_local:
            rows, columns = upscaler.runner.local_tiles(full, side)
            sides = [axis[0].stop for axis in (rows, columns)]
            tiles = len(rows) * len(columns)
        else:
            tiling, factor = upscaler.runner.tiling(side, options), restorer.vae_scale_factor
            planned = plan_tiles(full[0] // factor, full[1] // factor, tiling, restorer.unet.downscale)
            tiles = len(planned)
            if restorer.coder.in_step(tiling) is not None:
                coded = self._coded_in_step(full, runs, tiling)
            sides = [(tile.stop - tile.start) * factor for tile in planned[0]]
        guided = is_guided(asked.guidance_scale)
        stages = self._stages(sides, runs, guided) | coded
        macs = sum(
            evaluation.runs * (1 if evaluation.of_photo else tiles) * (cost.macs + cost.attention_macs)
            for evaluation, cost in stages.values()
        )
        if picture.alpha is not None:  # restored by itself
            tiles, macs = 2 * tiles, 2 * macs
        activations = max(cost.peak_bytes for _, cost in stages.values())
        shared = restorer.placement.device.type in ("cpu", "mps")  # else these are in the computer's own memory
        buffers = 4 * 3 * (2 * full[0] * full[1] + height * width) if shared else 0
        seconds = macs / self._speed / EFFICIENCY
        weights = self._weights
        shrunk = min(1.0, options.scale / MODEL_SCALE)  # the model's own result, below its factor
        tile = round(max(sides) * shrunk)
        return Expected(height, width, tiles, tile, weights, weights + activations + buffers, seconds)

    def _stages(self, sides: Sequence[int], runs: Runs, guided: bool) -> dict[str, tuple[Evaluation, Cost]]:
        """Of one tile: what is evaluated, and the cost of one run of it."""
        return self._measured(evaluations(self._meta, sides[0], sides[1], runs, guided, torch.device("meta")), sides)

    def _coded_in_step(self, sides: Sequence[int], runs: Runs, tiling: Tiling) -> dict[str, tuple[Evaluation, Cost]]:
        """Of a whole picture: the codings whose tiles go in step, all of them in memory."""
        restorer, factor = self._meta.restorer, self._meta.restorer.vae_scale_factor
        like = restorer.placement
        picture = like.new_empty(1, 3, *sides)
        latents = like.new_empty(1, restorer.unet.config["in_channels"], *(side // factor for side in sides))
        found = {"decode": Evaluation(runs.decodings, lambda: restorer.decode_latents(latents, tiling), of_photo=True)}
        if runs.encodings:
            encode = partial(restorer.encode_latents, picture, None, tiling)
            found["encode"] = Evaluation(runs.encodings, encode, of_photo=True)
        return self._measured(found, sides)

    def _measured(self, found: Mapping[str, Evaluation], sides: Sequence[int]) -> dict[str, tuple[Evaluation, Cost]]:
        measured = {}
        for name, evaluation in found.items():
            key = (name, evaluation.of_photo, sides[0], sides[1])
            if key not in self._known:
                self._known[key] = measure(evaluation.run)
            measured[name] = (evaluation, self._known[key])
        return measured


def _time(seconds: float) -> str:
    """Two digits are all that is known."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{float(f'{seconds / length:.2g}'):g} {unit}"
    return f"{float(f'{seconds:.2g}'):g} s"


def _bytes(network: Any) -> int:
    return sum(parameter.nbytes for parameter in network.parameters())


@torch.no_grad()
def macs_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """How fast the device convolves, from half a second of it."""
    weight = torch.randn(256, 256, 3, 3).to(device, dtype, memory_format=torch.channels_last)
    picture = torch.randn(1, 256, 64, 64).to(device, dtype, memory_format=torch.channels_last)
    macs, best = 64 * 64 * 256 * 256 * 9, 0.0
    begun = time.monotonic()
    while not best or time.monotonic() - begun < 0.5:
        started = time.monotonic()
        for _ in range(4):
            torch.conv2d(picture, weight, padding=1)
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        best = max(best, 4 * macs / max(time.monotonic() - started, 1e-9))
    return best
