"""D³SR: its losses by hand, what the discriminator sees, what trains, LoRA, and whole runs on tiny models."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import addsr
from addsr.checkpoints.published import Beside, locate
from addsr.convert import convert_model
from addsr.data.draws import Draws
from addsr.diffusion.defaults import ModelDefaults
from addsr.diffusion.restorer import Restorer
from addsr.diffusion.samplers.d3sr import D3SRSampler
from addsr.diffusion.schedule import Schedule, add_noise, scaled_linear_alphas_cumprod
from addsr.discriminators.diffusion import DiffusionDiscriminator
from addsr.errors import ModelError
from addsr.losses.adversarial import bce_discriminator_loss, bce_generator_loss
from addsr.losses.dists import CHANNELS, DISTS, STAGES
from addsr.losses.edge_aware import EdgeAware, sobel_magnitude
from addsr.models.adapters import add_lora, merge_lora_layers, save_lora
from addsr.models.diffusion_encoder import DiffusionEncoder
from addsr.models.unet import AddSRUNet
from addsr.options import RestoreOptions
from addsr.pipelines.d3sr import D3SRPipeline
from addsr.training.judge import Judge, latent_map_between
from addsr.training.networks import Networks
from addsr.training.sources import Sources
from addsr.training.task import Moment
from addsr.training.tasks.building import build_task
from addsr.training.tasks.d3sr import D3SRSettings, D3SRTask
from addsr.weights.lora_file import merge_adapters
from tests.published import UNET, write_base
from tests.tiny import tiny_unet, tiny_vae
from tests.training.runs import train_tiny

SHORT = {"images": 8, "save": 8}
ALPHAS = scaled_linear_alphas_cumprod()


def sobel_by_hand(picture):
    """(3, H, W) -> (H, W)."""
    gray = np.pad(picture.mean(0), 1)
    height, width = picture.shape[1:]
    result = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            part = gray[y : y + 3, x : x + 3]
            gx = (part[:, 2] - part[:, 0]) @ [1, 2, 1]
            gy = (part[2] - part[0]) @ [1, 2, 1]
            result[y, x] = np.sqrt(gx**2 + gy**2 + 1e-6)
    return result


def test_edge_aware_distance_by_hand():
    a, b = torch.rand(2, 1, 3, 9, 7, generator=torch.Generator().manual_seed(0)).double()
    edges = [sobel_by_hand(picture[0].numpy()) for picture in (a, b)]
    np.testing.assert_allclose(sobel_magnitude(a)[0, 0].numpy(), edges[0], rtol=1e-6)

    def squares(x, y):
        return (x - y).square().mean((1, 2, 3))

    expected = ((a - b) ** 2).mean().item() + ((edges[0] - edges[1]) ** 2).mean()
    assert EdgeAware(squares)(a, b).item() == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_by_hand():
    real, fake = torch.tensor([0.3, -2.0]), torch.tensor([1.0])
    sigmoid = torch.sigmoid
    expected = -(sigmoid(real).log().mean() + (1 - sigmoid(fake)).log().mean())
    torch.testing.assert_close(bce_discriminator_loss(real, fake), expected)
    torch.testing.assert_close(bce_generator_loss(fake), -sigmoid(fake).log().mean())


def test_the_same_autoencoder_in_half_precision_needs_no_map(tmp_path):
    ours, theirs = generator(), generator()
    theirs.vae.load_state_dict({key: value.half().float() for key, value in ours.vae.state_dict().items()})
    judge = Judge(DiffusionEncoder.from_unet(theirs.unet), theirs.vae, ALPHAS)
    crops = [torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    assert latent_map_between(ours, judge, crops, "its twin") is None
    theirs.vae.register_to_config(scaling_factor=2.0)
    assert latent_map_between(ours, judge, crops, "its twin") is not None


def write_dists(path):
    """DISTS with random weights."""
    generator = torch.Generator().manual_seed(0)
    state, before = {}, 3
    for stage, channels in zip(STAGES, CHANNELS[1:], strict=True):
        for layer in stage:
            state[f"features.{layer}.weight"] = torch.randn(channels, before, 3, 3, generator=generator) * 0.05
            state[f"features.{layer}.bias"] = torch.zeros(channels)
            before = channels
    state |= {name: torch.rand(1, sum(CHANNELS), 1, 1, generator=generator) for name in ("alpha", "beta")}
    save_file(state, path)
    return state


def test_dists_of_equal_pictures_is_zero_and_its_gradient_flows(tmp_path):
    generator = torch.Generator().manual_seed(0)
    state = write_dists(tmp_path / "dists.safetensors")
    dists = DISTS(tmp_path / "dists.safetensors")
    a, b = torch.rand(2, 2, 3, 40, 40, generator=generator)
    torch.testing.assert_close(dists(a, a), torch.zeros(2), atol=1e-4, rtol=0)
    a.requires_grad_(True)
    distance = dists(a, b)
    assert ((distance > 0) & (distance < 1)).all()
    distance.sum().backward()
    assert a.grad is not None
    assert a.grad.abs().sum() > 0
    state.pop("beta")
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="not DISTS"):
        DISTS(tmp_path / "other.safetensors")


def test_dists_reads_the_released_files(tmp_path):
    state = write_dists(tmp_path / "dists.safetensors")
    released = tmp_path / "released"
    released.mkdir()
    torch.save({k: v for k, v in state.items() if "." in k}, released / "vgg16-397923af.pth")
    torch.save({k: torch.nn.Parameter(v) for k, v in state.items() if "." not in k}, released / "weights.pt")
    a, b = torch.rand(2, 2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    theirs = DISTS(released)
    torch.testing.assert_close(theirs(a, b), DISTS(tmp_path / "dists.safetensors")(a, b), rtol=0, atol=0)
    assert not any(value.requires_grad for value in theirs.buffers())


def test_dists_and_edges_are_taken_in_float32_under_autocast(tmp_path):
    write_dists(tmp_path / "dists.safetensors")
    distance = EdgeAware(DISTS(tmp_path / "dists.safetensors"))
    a, b = torch.rand(2, 1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        automatic = distance(a, b)
    assert torch.equal(automatic, distance(a, b))


def test_the_perceptual_network_lies_where_the_run_computes(tmp_path):
    write_dists(tmp_path / "dists.safetensors")
    settings = D3SRSettings(perceptual="ea-dists", discriminator="none", lora_rank=0)
    networks = Networks(Restorer(tiny_unet(), tiny_vae(), Schedule(ALPHAS), D3SRSampler()))
    sources = Sources((), dists=tmp_path / "dists.safetensors")
    task = build_task({}, settings, networks, sources, None, None, torch.device("meta"), resumed=False)
    assert {buffer.device.type for buffer in task.distance.buffers()} == {"meta"}


def discriminator():
    torch.manual_seed(0)
    unet = tiny_unet()
    return DiffusionDiscriminator(DiffusionEncoder.from_unet(unet), ALPHAS)


def test_the_discriminator_sees_noised_latents_only():
    judge, seen = discriminator(), []
    judge.encoder.conv_in.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    scores = judge(latents, Draws(3, 0, [0, 1]))
    draws = Draws(3, 0, [0, 1])
    timestep, noise = draws.integers(1000), draws.normal(4, 8, 8)
    torch.testing.assert_close(seen[0], add_noise(latents, noise, timestep, ALPHAS))
    assert scores.shape == (2, 16)  # one a position after the mid block
    assert len(seen) == 1


def generator():
    torch.manual_seed(1)
    return Restorer(
        tiny_unet(), tiny_vae(), Schedule(ALPHAS, "sample"), D3SRSampler(), ModelDefaults(num_inference_steps=1)
    )


def batch():
    hr = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    lr = torch.nn.functional.avg_pool2d(hr, 4)
    return {"hr": hr, "lr": torch.nn.functional.interpolate(lr, scale_factor=4.0)}


@pytest.mark.parametrize("weight", ["fixed", "adaptive"])
def test_gradients_reach_only_what_is_declared(weight):
    model, judge = generator(), discriminator()
    settings = D3SRSettings(perceptual="none", adversarial_weight=weight, trainable=["unet.up_blocks.*"])
    task = D3SRTask(model, settings, None, judge)
    players = task.players()
    losses = task.losses("generator", batch(), Moment(0.5, Draws(0, 0, [0, 1])))
    losses["total"].backward()
    reached = {name for name, parameter in model.unet.named_parameters() if parameter.grad is not None}
    assert reached
    assert all(name.startswith("up_blocks.") for name in reached)
    assert all(parameter.grad is None for parameter in [*model.vae.parameters(), *judge.parameters()])
    assert {id(p) for p in players["generator"].parameters} >= {
        id(parameter) for parameter in model.unet.parameters() if parameter.grad is not None
    }
    before = [None if p.grad is None else p.grad.clone() for p in model.unet.parameters()]
    task.losses("discriminator", batch(), Moment(0.5, Draws(0, 0, [0, 1])))["total"].backward()
    assert any(parameter.grad is not None for parameter in judge.head.parameters())
    after = [p.grad for p in model.unet.parameters()]
    assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_training_restores_as_inference_does():
    model, pictures = generator(), batch()
    task = D3SRTask(model, D3SRSettings(perceptual="none", discriminator="none"))
    _, trained = task._step(pictures["lr"])
    inferred = model.decode_latents(model(pictures["lr"]))
    torch.testing.assert_close(trained, inferred)


def test_lora_has_the_papers_number_of_parameters():
    """966.3 M in all, 949.6 M of them Stable Diffusion 2.1's."""
    with torch.device("meta"):
        adapters = add_lora(AddSRUNet(use_image_cross_attention=False))
    assert 949.56 + sum(parameter.numel() for parameter in adapters) / 1e6 == pytest.approx(966.3, rel=1e-3)


def test_lora_starts_as_nothing_merges_and_is_shared(tmp_path):
    torch.manual_seed(0)
    unet = AddSRUNet(**UNET).eval()
    plain = AddSRUNet(**UNET).eval()
    plain.load_state_dict(unet.state_dict())
    inputs = (torch.randn(1, 4, 8, 8), 399, torch.randn(1, 7, 16), torch.randn(1, 5, 512))
    with torch.no_grad():
        before = unet(*inputs)
        adapters = add_lora(unet, 4, 8)
        torch.testing.assert_close(unet(*inputs), before)
        assert {id(p) for p in unet.parameters() if p.requires_grad} == {id(p) for p in adapters}
        for parameter in adapters:
            parameter.normal_(std=0.1)
        unmerged = unet(*inputs)
        assert not torch.allclose(unmerged, before)
        save_lora(unet, tmp_path / "lora.safetensors")
        merge_lora_layers(unet)
        assert unet.state_dict().keys() == plain.state_dict().keys()
        torch.testing.assert_close(unet(*inputs), unmerged, atol=1e-4, rtol=1e-4)
        merge_adapters(plain, tmp_path / "lora.safetensors")
        torch.testing.assert_close(plain(*inputs), unmerged, atol=1e-5, rtol=1e-5)
    with pytest.raises(ModelError, match="has an adapter for"):
        merge_adapters(tiny_unet(), tmp_path / "lora.safetensors")


def test_sd_size_preset_from_stable_diffusion(many_photos, tmp_path):
    torch.manual_seed(0)
    base = tmp_path / "stable-diffusion-2-1-base"
    write_base(base, AddSRUNet(**UNET | {"use_image_cross_attention": False}))
    change = ("--set", "task.perceptual=none", "--set", "loop.rate=1e-2")
    random = ("--set", "task.discriminator=random")
    train_tiny("d3sr", "--data", many_photos, "--init", base, "--out", tmp_path / "random", *change, *random, **SHORT)
    out = tmp_path / "run"
    train_tiny("d3sr", "--data", many_photos, "--init", base, "--out", out, *change, **SHORT)
    row = json.loads((out / "stats.jsonl").read_text().splitlines()[-1])
    assert {"generator/mse", "generator/adversarial", "discriminator/real"} <= set(row)
    lora = load_file(out / "model" / "lora.safetensors")
    assert any("lora_B" in name and value.abs().sum() > 0 for name, value in lora.items())
    up = addsr.load(out / "model", device="cpu", precision="fp32")
    assert up.restorer.sampler == D3SRSampler(399)
    photo = Image.open(many_photos / "0.png").crop((0, 0, 20, 16))
    assert up(photo).size == (80, 64)
    check_adapters_are_the_model(base, out / "model", photo, tmp_path)
    pipeline = D3SRPipeline.from_pretrained(out / "model").to(torch.float32)
    assert pipeline(torch.rand(1, 3, 64, 72), output_type="pt").images.shape == (1, 3, 64, 72)
    with pytest.raises(addsr.AddSRError, match="must be 1"):
        up(photo, steps=2)


def check_adapters_are_the_model(base, model, photo, tmp_path):
    """The shared file and Stable Diffusion's own folder give what the merged model gives, up to its half precision."""
    whole = np.asarray(addsr.load(model, device="cpu", precision="fp32")(photo), float)
    lora = model / "lora.safetensors"
    shared = addsr.load(base, device="cpu", precision="fp32", beside=Beside(lora=lora))
    assert shared.restorer.sampler == D3SRSampler(399)
    assert np.abs(np.asarray(shared(photo), float) - whole).max() <= 2
    plain = addsr.load(model, device="cpu", precision="fp32")
    assert shared.sha256 != plain.sha256
    convert_model(locate(base, Beside(lora=lora)), tmp_path / "converted")
    again = addsr.load(tmp_path / "converted", device="cpu", precision="fp32")
    for part in ("unet", "vae", "fixed_prompt"):
        ours, theirs = (getattr(up.restorer, part).state_dict() for up in (again, shared))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    # one lies in a mapped file: kernels add up otherwise by a last bit where memory is aligned otherwise
    assert np.abs(np.asarray(again(photo), int) - np.asarray(shared(photo), int)).max() <= 1
    for other in ("compact", model):  # the latter has these very adapters merged
        with pytest.raises(ModelError, match="adapters go with"):
            addsr.load(other, beside=Beside(lora=lora))
    save_file(load_file(lora), tmp_path / "late.safetensors", {"one_step_timestep": "1000"})
    with pytest.raises(ModelError, match="it must be 0 to 999"):
        addsr.load(base, beside=Beside(lora=tmp_path / "late.safetensors"))
    with pytest.raises(ModelError, match="so --base has no effect"):
        addsr.load(base, beside=Beside(lora=lora, base=base))
    made_by = shared.made_by(RestoreOptions())
    assert not made_by.keys() & {"psr_weight", "start_point"}  # it has neither
    with pytest.raises(ModelError, match="holds a StableDiffusionPipeline"):
        addsr.load(base)  # untrained for this
    tensors = load_file(lora)
    name = next(key for key in tensors if key.endswith("lora_B.weight"))
    down = name.replace("lora_B", "lora_A")
    alpha = name.replace("lora_B.weight", "alpha")
    stray = {"up_blocks.7.lora_A.weight": torch.ones(1, 1), "up_blocks.7.lora_B.weight": torch.ones(1, 1)}
    for change, message in (
        ({name: tensors[name][:1]}, "does not fit"),
        ({name: tensors[name][:, :1]}, "cannot be used"),
        ({down: tensors[down][:0], name: tensors[name][:, :0]}, "cannot be used"),
        ({down: torch.tensor(1.0)}, "cannot be used"),
        ({down: tensors[down] * torch.nan}, "not finite"),
        ({alpha: torch.tensor(torch.nan)}, "not one finite number"),
        ({alpha: torch.ones(2)}, "not one finite number"),
        (stray, "which AddSRUNet"),
        ({"extra": torch.ones(1)}, "belongs to no adapter"),
    ):
        save_file({key: value.contiguous() for key, value in (tensors | change).items()}, tmp_path / "bad.safetensors")
        with pytest.raises(ModelError, match=message):
            addsr.load(base, beside=Beside(lora=tmp_path / "bad.safetensors"))
    (tmp_path / "bad.safetensors").write_bytes(lora.read_bytes()[:500])
    with pytest.raises(ModelError, match="damaged"):
        addsr.load(base, beside=Beside(lora=tmp_path / "bad.safetensors"))


@pytest.mark.parametrize("kind", ["none", "cnn", "random", "diffusion"])
def test_each_discriminator_is_one_switch(kind, many_photos, tmp_path, lpips_weights):
    out = tmp_path / "run"
    words = ("--data", many_photos, "--lpips", lpips_weights, "--discriminator", "compact", "--out", out)
    train_tiny("compact-d3sr", *words, "--set", f"task.discriminator={kind}", **SHORT)
    row = json.loads((out / "stats.jsonl").read_text().splitlines()[-1])
    assert ("generator/adversarial" in row) == (kind != "none")
    model = addsr.load(out / "model", device="cpu", precision="fp32")
    photo = Image.open(many_photos / "0.png")
    assert model(photo).size == (360, 320)
    assert np.array_equal(np.asarray(model(photo)), np.asarray(model(photo, seed=1)))  # no noise
