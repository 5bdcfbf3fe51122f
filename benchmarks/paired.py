"""Whole restorations by Stable-Diffusion-2-size models with random weights, one after the other: not a sum of stages.

    python benchmarks/paired.py d3sr addsr seesr [--size 512] [--steps 1] [--precision bf16] [--threads 2] [--rounds 1]

A restoration is all evaluations of networks between LR's pixels and the result's: text, tokens and tags where a model has
them, all steps, the decoding; not enlarging and the colour fix, which are alike. Each model first does one step of 64² to
warm up. Prints the seconds of each, and how many times as long as the first's they are. Needs 20 GB at most.
"""

import argparse
import time

import torch

from addsr.diffusion.guidance import is_guided
from addsr.evaluation.profile import CONFIGURED, configured, with_random_weights
from addsr.evaluation.stages import TEXT_TOKENS, Model
from addsr.image.normalize import ENCODER_SIDE
from addsr.runtime.device import choose_precision


@torch.no_grad()
def restore(model: Model, picture: torch.Tensor, steps: int | None = None) -> torch.Tensor:
    """All networks, as the Upscaler runs them, on a picture enlarged already: (1, 3, H, W) in [0, 1] -> (1, 3, H, W)."""
    restorer, words = model.restorer, {}
    if model.text_encoder is not None:
        ids = torch.zeros(1, TEXT_TOKENS, dtype=torch.long)
        names = ["prompt_embeds"] + ["negative_prompt_embeds"] * is_guided(restorer.defaults.guidance_scale)
        words = {name: model.text_encoder(ids)[0] for name in names}
    if (encoder := restorer.image_encoder) is not None:
        gray = torch.full((1, 3, ENCODER_SIDE, ENCODER_SIDE), 0.5, dtype=restorer.placement.dtype)
        words["image_encoder_hidden_states"] = tokens = encoder(gray)
        encoder.tag_logits(tokens)  # pyright: ignore[reportCallIssue]
    return restorer.decode_latents(restorer(picture, num_inference_steps=steps, **words))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=CONFIGURED)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, help="default: each model's own")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dtype = choose_precision(options.precision, torch.device("cpu"))
    picture = torch.rand(1, 3, options.size, options.size, generator=torch.Generator().manual_seed(0))
    times: dict[str, list[float]] = {name: [] for name in options.models}
    for _ in range(options.rounds):
        for name in options.models:
            model = with_random_weights(configured(name).to(dtype), torch.device("cpu"))
            model.restorer.lay_out(torch.device("cpu"))
            model.restorer.choose_attention(torch.device("cpu"))
            restore(model, picture[..., :64, :64].contiguous(), 1)
            begun = time.perf_counter()
            restore(model, picture, options.steps)
            times[name].append(time.perf_counter() - begun)
            ratio = min(times[name]) / min(times[options.models[0]])
            print(f"{name}: {min(times[name]):.1f} s, {ratio:.1f} times {options.models[0]}", flush=True)
            del model


if __name__ == "__main__":
    main()
