"""Attention by matrix products: as the fused kernel but for rounding, where the models meet it, and only where it pays."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

import addsr
from addsr.diffusion.lockstep import run_in_step
from addsr.models import attention
from addsr.models.attention import RowwiseAttnProcessor, rowwise_attention, use_rowwise_attention
from addsr.models.autoencoder_passage import decoding
from addsr.models.blocks import BlockSettings
from addsr.runtime import device as devices
from tests.published import write_published

SETTINGS = BlockSettings(
    time_channels=8, groups=4, eps=1e-5, text_channels=6, image_channels=None, linear_projection=True
)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("at_once", [2**22, 0])
@pytest.mark.parametrize("shape", [(1, 2, 300, 300, 8), (2, 3, 130, 77, 16), (2, 1, 64, 512, 5)])
def test_as_the_fused_kernel(shape, at_once, monkeypatch):
    monkeypatch.setattr(attention, "AT_ONCE", at_once)
    monkeypatch.setattr(attention, "BLOCK", 1)  # the fewest rows: several blocks, the last one shorter
    batch, heads, length, context, width = shape
    query = drawn(batch, length, heads, width).transpose(1, 2)
    key, value = (drawn(batch, context, heads, width, seed=seed).transpose(1, 2) for seed in (1, 2))
    expected = F.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(rowwise_attention(query, key, value), expected)
    half = [x.bfloat16() for x in (query, key, value)]
    ours, fused = (f(*half).float() for f in (rowwise_attention, F.scaled_dot_product_attention))
    assert (ours - expected).norm() < 2 * (fused - expected).norm()


def test_what_all_keys_share_costs_little_precision():
    query, key, value = (drawn(1, 2, 200, 32, seed=seed) for seed in range(3))
    half = [x.bfloat16() for x in (4 * query, key + 20, value)]
    expected = F.scaled_dot_product_attention(*(x.float() for x in half))
    ours, fused = (f(*half).float() for f in (rowwise_attention, F.scaled_dot_product_attention))
    assert (ours - expected).norm() < 8 * (fused - expected).norm()


@torch.no_grad()
def test_transformers_and_autoencoders_compute_the_same(monkeypatch):
    torch.manual_seed(0)
    transformer = SETTINGS.transformer(16, 2, 6).eval()
    config = {"block_out_channels": (16, 16), "down_block_types": ("DownEncoderBlock2D",) * 2}
    vae = AutoencoderKL(**config, up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4).eval()
    hidden_states, words, latents = drawn(2, 16, 6, 4), drawn(2, 5, 6), drawn(1, 4, 8, 6)
    ours, ours_vae = deepcopy(transformer), deepcopy(vae)
    for network in (ours, ours_vae):
        use_rowwise_attention(network)
        processors = [m.processor for m in network.modules() if hasattr(m, "processor")]
        assert processors
        assert all(isinstance(processor, RowwiseAttnProcessor) for processor in processors)
    given = {"encoder_hidden_states": words, "return_dict": False}
    torch.testing.assert_close(ours(hidden_states, **given)[0], transformer(hidden_states, **given)[0])
    torch.testing.assert_close(ours_vae.decode(latents).sample, vae.decode(latents).sample)
    calls = []
    monkeypatch.setattr(RowwiseAttnProcessor, "attend", lambda *qkv: calls.append(qkv) or rowwise_attention(*qkv[-3:]))
    torch.testing.assert_close(run_in_step([decoding(ours_vae, latents)])[0], vae.decode(latents).sample)
    assert calls


@pytest.mark.parametrize(
    ("amx", "avx512", "precision", "rowwise"),
    [
        (False, True, "bf16", True),
        (True, True, "bf16", False),
        (False, False, "bf16", False),
        (False, True, "fp32", False),
    ],
)
def test_only_in_bfloat16_without_amx(amx, avx512, precision, rowwise, tmp_path, monkeypatch):
    monkeypatch.setattr(devices.torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(devices.torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    folder = write_published(tmp_path)
    restorer = addsr.load(folder, device="cpu", precision=precision).restorer
    for network in (restorer.unet, restorer.controlnet, restorer.vae):
        found = {isinstance(m.processor, RowwiseAttnProcessor) for m in network.modules() if hasattr(m, "processor")}
        assert found == {rowwise}
