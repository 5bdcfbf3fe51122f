"""AddSRPipeline against the official inference: recorded noise, prompt and tokens, on tiny networks."""

import json

import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, ModelMixin
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from addsr.models.controlnet import AddSRControlNet
from addsr.models.unet import AddSRUNet
from addsr.pipelines.addsr import AddSRPipeline
from addsr.pipelines.seesr import SeeSRPipeline

CASE = "addsr_pipeline"


class StandInRAM(ModelMixin):
    """The golden's deterministic stand-in for RAM: (B, 3, 384, 384) -> (B, 145, 512)."""

    def __init__(self, weights):
        super().__init__()
        self.linear = nn.Linear(3, 512)
        self.linear.load_state_dict(weights)

    def forward(self, pixels):
        tokens = self.linear(nn.functional.avg_pool2d(pixels, 32).flatten(2).transpose(1, 2)).tanh()
        return torch.cat([tokens.mean(1, keepdim=True), tokens], 1)


@pytest.fixture
def pipeline(golden, load):
    folder = golden(CASE)
    config = json.loads((folder / "config.json").read_text())
    unet = AddSRUNet(**{k: v for k, v in config["unet_config"].items() if k != "sample_size"})
    unet.load_state_dict(load(CASE, "unet"))
    controlnet = AddSRControlNet.from_unet(unet)
    controlnet.load_state_dict(load(CASE, "controlnet"))
    vae = AutoencoderKL(**config["vae_config"])
    vae.load_state_dict(load(CASE, "vae"))
    text_encoder = CLIPTextModel(CLIPTextConfig(**config["text_encoder_config"]))
    state = load(CASE, "text_encoder")
    own = text_encoder.state_dict()
    text_encoder.load_state_dict({k if k in own else k.removeprefix("text_model."): v for k, v in state.items()})
    pipeline = AddSRPipeline(
        unet.eval(),
        vae.eval(),
        DDPMScheduler(**config["scheduler_config"]),
        controlnet.eval(),
        text_encoder.eval(),
        CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        StandInRAM(load(CASE, "standin_ram")),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def recorded(load):
    """The pipeline's inputs, and its noise by step number."""
    inputs = load(CASE, "inputs")
    noise = {0: "0.init_latents", -1: "1.vae_posterior", 1: "2.renoise", 2: "3.renoise", 3: "4.renoise"}
    image = inputs["lr_upscaled_uint8"].permute(2, 0, 1)[None].float() / 255
    tokens = inputs["ram_tokens_initial"]
    return image, {"noise": lambda step: inputs[f"noise.{noise[step]}"], "image_encoder_hidden_states": tokens}


@pytest.mark.parametrize(("steps", "prefix"), [(4, ""), (1, "onestep.")])
def test_pictures_agree(pipeline, load, agrees, steps, prefix):
    image, options = recorded(load)
    outputs = load(CASE, "outputs")
    options |= {"prompt_embeds": outputs["prompt_embeds"], "num_inference_steps": steps}
    agrees(pipeline(image, output_type="latent", **options).images, outputs[f"{prefix}final_latents"])
    picture = (pipeline(image, output_type="pt", **options).images * 255).round().byte()
    agrees(picture[0].permute(1, 2, 0), outputs[f"{prefix}image_uint8"])


def test_every_step_agrees(pipeline, load, agrees):
    image, options = recorded(load)
    outputs = load(CASE, "outputs")
    seen = []

    def watch(pipe, step, timestep, tensors):
        assert timestep == int(outputs[f"step{step}.t"])
        seen.append(tensors["latents"])
        return {}

    pipeline(image, prompt_embeds=outputs["prompt_embeds"], callback_on_step_end=watch, **options)
    for step, x0 in enumerate(seen):
        agrees(x0, outputs[f"step{step}.pred_z0"])
    assert len(seen) == 4


def test_prompt_is_encoded_as_published(pipeline, golden, load, agrees):
    prompt = json.loads((golden(CASE) / "config.json").read_text())["prompt"]
    agrees(pipeline.encode_prompt(prompt, 1), load(CASE, "outputs")["prompt_embeds"])


def test_words_lead_to_the_same_picture(pipeline, golden, load, agrees):
    """From the prompt as text, not from recorded embeddings."""
    image, options = recorded(load)
    prompt = json.loads((golden(CASE) / "config.json").read_text())["prompt"]
    agrees(pipeline(image, prompt, output_type="latent", **options).images, load(CASE, "outputs")["final_latents"])


def from_noise():
    """The noise of the official run that starts from it: the first by a generator, then torch's own."""
    own = torch.Generator().manual_seed(1234)
    drawn = {0: torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1235))}
    drawn |= {step: torch.randn(1, 4, 16, 16, generator=own) for step in (1, 2, 3)}
    return drawn.__getitem__


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("psr05_vs_psr04", {"psr_weight": 0.4}),
        ("psr05_vs_psr0", {"psr_weight": 0.0}),
        ("noise_start", {"start_point": "noise", "noise": from_noise()}),
    ],
)
def test_options_change_as_much_as_there(pipeline, golden, load, name, changes):
    """Of these runs the golden has only how far they are from the recorded one, in units of its largest latent."""
    image, options = recorded(load)
    outputs = load(CASE, "outputs")
    expected = json.loads((golden(CASE) / "config.json").read_text())["sensitivities"][name]
    options |= {"prompt_embeds": outputs["prompt_embeds"], **changes}
    latents, base = pipeline(image, output_type="latent", **options).images, outputs["final_latents"]
    assert ((latents - base).abs().max() / base.abs().max()).item() == pytest.approx(expected, abs=2e-5)


@torch.no_grad()
def test_seesr_is_diffusers_ddpm_under_guidance(pipeline, load, agrees):
    """SeeSR's run has no golden: its networks are AddSR's, so only start, guidance and sampler are its own."""
    image, options = recorded(load)
    seesr = SeeSRPipeline(**pipeline.components)
    tokens, positive = options["image_encoder_hidden_states"], load(CASE, "outputs")["prompt_embeds"]
    negative = pipeline.encode_prompt("blurry", 1)
    shape, steps = (1, 4, 16, 16), 50
    first = {step: torch.randn(shape, generator=torch.Generator().manual_seed(7 - step)) for step in (0, -1)}
    drawn = torch.Generator().manual_seed(9)
    words = {"prompt_embeds": positive, "negative_prompt_embeds": negative, "image_encoder_hidden_states": tokens}
    ours = seesr(
        image,
        noise=lambda step: first[step] if step in first else torch.randn(shape, generator=drawn),
        num_inference_steps=steps,
        output_type="latent",
        **words,
    ).images

    scheduler, generator = DDPMScheduler.from_config(pipeline.scheduler.config), torch.Generator().manual_seed(9)
    scheduler.set_timesteps(steps)
    posterior = pipeline.vae.encode(image * 2 - 1).latent_dist
    latents = (posterior.mean + posterior.std * first[-1]) * pipeline.vae.config.scaling_factor
    latents = scheduler.add_noise(latents, first[0], torch.tensor([999]))
    twice = {"encoder_hidden_states": torch.cat([negative, positive])}
    twice["image_encoder_hidden_states"] = torch.cat([tokens] * 2)
    for timestep in scheduler.timesteps:
        both = torch.cat([latents] * 2)
        control = pipeline.controlnet(both, timestep, controlnet_cond=torch.cat([image] * 2), **twice)
        residuals = {"down_block_additional_residuals": control.down_block_res_samples}
        residuals["mid_block_additional_residual"] = control.mid_block_res_sample
        without, within = pipeline.unet(both, timestep, **twice, **residuals).chunk(2)
        guided = without + 5.5 * (within - without)
        latents = scheduler.step(guided, timestep, latents, generator=generator).prev_sample
    agrees(ours, latents)
