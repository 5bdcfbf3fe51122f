import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler
from PIL import Image

from addsr.models.controlnet import AddSRControlNet
from addsr.models.unet import AddSRUNet
from addsr.pipelines.addsr import AddSRPipeline
from addsr.pipelines.input import to_tensor
from tests.tiny import SCHEDULE, tiny_unet


def picture(height=32, width=48, count=1):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def sd_pipeline():
    """Stable Diffusion's architecture, with representation attention but without text."""
    unet = AddSRUNet(
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,
        cross_attention_dim=None,
        image_cross_attention_dim=12,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 8, 8),
        norm_num_groups=4,
        layers_per_block=1,
    )
    return AddSRPipeline(unet.eval(), vae.eval(), DDPMScheduler(**SCHEDULE), AddSRControlNet.from_unet(unet).eval())


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_the_step_callback_counts_to_n(compact_pipeline, steps):
    seen = []

    def watch(pipe, step, timestep, tensors):
        seen.append((step, timestep))
        return {}

    compact_pipeline(picture(), num_inference_steps=steps, callback_on_step_end=watch)
    assert seen == [(0, 999), (1, 749), (2, 499), (3, 249)][:steps]


def test_the_callback_may_replace_the_latents(compact_pipeline):
    replaced = compact_pipeline(
        picture(), output_type="latent", callback_on_step_end=lambda *a: {"latents": torch.ones(1, 4, 8, 12)}
    )
    assert torch.equal(replaced.images, torch.ones(1, 4, 8, 12))


@pytest.mark.parametrize(("kind", "type_"), [("pil", list), ("np", np.ndarray), ("pt", torch.Tensor)])
def test_output_types(compact_pipeline, kind, type_):
    images = compact_pipeline(picture(), output_type=kind).images
    assert isinstance(images, type_)
    if kind == "pil":
        assert isinstance(images[0], Image.Image)
        assert images[0].size == (48, 32)
    elif kind == "np":
        assert images.shape == (1, 32, 48, 3)


def test_pil_array_and_tensor_inputs_are_the_same(compact_pipeline):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    floats = pixels.astype(np.float32) / 255
    inputs = [Image.fromarray(pixels), floats[None], torch.from_numpy(floats).permute(2, 0, 1)[None]]
    results = [compact_pipeline(image, output_type="pt").images for image in inputs]
    torch.testing.assert_close(results[1], results[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(results[2], results[0], atol=1e-6, rtol=0)


def test_a_batch_gives_what_each_picture_gives(compact_pipeline):
    both = picture(count=2)
    options = {"num_inference_steps": 4, "output_type": "pt"}
    together = compact_pipeline(both, positions=[(0, 0), (8, 16)], **options).images
    alone = compact_pipeline(both[1:], positions=[(8, 16)], **options).images
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=0)


def test_the_seed_decides_bitwise(compact_pipeline):
    a, b, c = (compact_pipeline(picture(), num_inference_steps=4, seed=s, output_type="pt").images for s in (3, 3, 4))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_inference_steps": 5}, "1 to 4"),
        ({"psr_weight": 1.5}, "psr_weight"),
        ({"start_point": "hr"}, "start_point"),
        ({"output_type": "jpeg"}, "output_type"),
        ({"positions": [(0, 0), (1, 1)]}, "positions"),
        ({"callback_on_step_end_tensor_inputs": ["prompt"]}, "latents"),
    ],
)
def test_bad_arguments_are_named(compact_pipeline, options, message):
    with pytest.raises(ValueError, match=message):
        compact_pipeline(picture(), **options)


def test_sizes_that_do_not_fit_are_named(compact_pipeline):
    with pytest.raises(ValueError, match="multiples of 4"):
        compact_pipeline(picture(30, 48))
    with pytest.raises(ValueError, match="expected float"):
        compact_pipeline(torch.zeros(1, 1, 32, 32))


def in_memory(pipeline):
    """The weights copied out of the file that they are mapped from: on some CPUs (AMD's with AVX-512) matrix products round
    by the alignment of their operands.
    """
    for network in pipeline.restorer.networks:
        for parameter in network.parameters():
            parameter.data = parameter.data.clone()
    return pipeline


def test_round_trip(compact_pipeline, tmp_path):
    compact_pipeline.save_pretrained(tmp_path)
    loaded = in_memory(AddSRPipeline.from_pretrained(tmp_path))
    assert loaded.config.start_point == "noise"
    assert torch.equal(loaded(picture(), output_type="pt").images, compact_pipeline(picture(), output_type="pt").images)


def test_round_trip_with_a_controlnet_and_without_text(tmp_path):
    pipeline = sd_pipeline()
    tokens = torch.randn(1, 5, 12)
    before = pipeline(picture(32, 32), image_encoder_hidden_states=tokens, output_type="pt").images
    pipeline.save_pretrained(tmp_path)
    loaded = in_memory(AddSRPipeline.from_pretrained(tmp_path))
    assert torch.equal(loaded(picture(32, 32), image_encoder_hidden_states=tokens, output_type="pt").images, before)


def test_channel_norm_makes_a_tile_equal_the_whole():
    """Away from its border a tile's prediction does not depend on what lies outside it."""
    unet = tiny_unet()
    latents, condition = torch.randn(1, 4, 96, 96), torch.rand(1, 3, 384, 384)
    with torch.no_grad():
        whole = unet(latents, 999, controlnet_cond=condition)
        tile = unet(latents[..., :64, :64], 999, controlnet_cond=condition[..., :256, :256])
    torch.testing.assert_close(tile[..., :24, :24], whole[..., :24, :24], atol=1e-5, rtol=0)


def test_diffusers_offloading_brings_the_autoencoder_and_says_where_to_compute(compact_pipeline, monkeypatch):
    called = []

    class Hook:
        def pre_forward(self, module):
            called.append(module)

    compact_pipeline.vae._hf_hook = Hook()
    compact_pipeline.vae.encode(torch.rand(1, 3, 16, 16))
    compact_pipeline.vae.decode(torch.rand(1, 4, 4, 4))
    assert called == [compact_pipeline.vae] * 2
    monkeypatch.setattr(type(compact_pipeline), "_execution_device", torch.device("meta"))
    assert compact_pipeline.restorer.placement.device.type == "meta"


def test_pipelines_take_pictures_of_any_mode():
    deep = np.array([[0, 300], [30000, 65535]], np.uint16)
    assert torch.equal(to_tensor(Image.fromarray(deep)), torch.from_numpy(deep / np.float32(65535)).expand(1, 3, 2, 2))
    assert to_tensor(np.random.default_rng(0).random((1, 8, 8, 3))).dtype == torch.float32
