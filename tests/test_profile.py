"""addsr profile: the papers' numbers of parameters, sums that add up, and stages that can be timed."""

import json

import pytest
import torch
from typer.testing import CliRunner

from addsr import load
from addsr.cli.app import app
from addsr.errors import AddSRError
from addsr.evaluation.plan import Expected
from addsr.evaluation.profile import profile
from tests.published import write_published


def test_stable_diffusion_2_size_without_weights():
    addsr, seesr = (profile(name) for name in ("addsr", "seesr"))
    assert addsr.parameters == seesr.parameters
    millions = {part: round(count / 1e6, 1) for part, count in addsr.parameters.items()}
    assert (millions["unet"], millions["controlnet"]) == (1126.8, 489.0)  # as published
    assert millions["vae encoder"] + millions["vae decoder"] == pytest.approx(83.65, abs=0.1)
    assert (addsr.steps, seesr.steps) == (4, 50)
    assert addsr.stages["decode"].runs == addsr.stages["tokens"].runs == 4  # PSR decodes and looks again each step
    assert seesr.stages["unet"].runs == 100  # guidance
    assert addsr.macs == sum(stage.runs * stage.macs for stage in addsr.stages.values())
    assert profile("addsr", steps=1).macs < addsr.macs / 3


def test_d3sr_has_the_papers_numbers():
    """Table 1 and fig. 4: 966.3 M with LoRA, of which 949.6 M are Stable Diffusion's, and 2,132 GMAC at 512²."""
    d3sr, addsr = profile("d3sr"), profile("addsr")
    assert sum(d3sr.parameters.values()) / 1e6 == pytest.approx(949.6, abs=0.1)
    assert d3sr.macs / 1e9 == pytest.approx(2132, rel=0.02)
    assert sum(d3sr.parameters.values()) < 0.7 * sum(addsr.parameters.values())
    assert list(d3sr.stages) == ["encode", "unet", "decode"]


def test_cost_of_the_compact_model_grows_with_the_area():
    one, large = profile("compact", 256), profile("compact", 512)
    assert large.macs == pytest.approx(4 * one.macs, rel=1e-3)  # but for the time embedding
    assert set(one.stages) == {"unet", "decode"}
    networks = load("compact", device="cpu", precision="fp32").restorer.networks
    assert sum(one.parameters.values()) == sum(p.numel() for network in networks for p in network.parameters())


def test_a_preset_counts_as_the_model_that_it_trains():
    d3sr, compact = profile("compact-d3sr"), profile("compact")
    assert d3sr.parameters == compact.parameters
    assert list(d3sr.stages) == ["encode", "unet", "decode"]
    assert profile("compact-student").macs == compact.macs  # the bundled model's networks, to be trained from scratch
    with pytest.raises(AddSRError, match="sd2-addsr is a training preset"):
        profile("sd2-addsr")


def test_a_release_is_timed_by_stage(tmp_path):
    release = write_published(tmp_path)
    one = profile(str(release), 128, 2, timed=True)
    assert list(one.stages) == ["text", "tokens", "tags", "encode", "controlnet", "unet", "decode"]
    assert one.seconds is not None
    assert one.seconds == pytest.approx(sum(stage.seconds or 0 for stage in one.stages.values()))
    half = profile(str(release), 128, 2, timed=True, precision="bf16")
    assert (half.precision, half.weight_bytes, half.macs) == ("bfloat16", one.weight_bytes / 2, one.macs)
    assert half.seconds is not None
    with pytest.raises(AddSRError, match="size is 100"):
        profile(str(release), 100)
    with pytest.raises(AddSRError, match="1 to 4"):
        profile("compact", steps=9)


def test_the_command_prints_a_table_and_json():
    result = CliRunner().invoke(app, ["profile", "compact", "compact", "--steps", "2"])
    assert result.exit_code == 0, result.output
    assert result.output.count("compact, 2 steps, 512²") == 2
    row = json.loads(CliRunner().invoke(app, ["profile", "compact", "--json"]).output)
    assert row["parameters"]["all"] == sum(v for k, v in row["parameters"].items() if k != "all")
    assert row["macs"]["all"] == sum(v for k, v in row["macs"].items() if k != "all")
    assert CliRunner().invoke(app, ["profile", "nonesuch"]).exit_code == 1
    assert torch.get_default_device().type == "cpu"


@pytest.mark.parametrize(("seconds", "told"), [(0.031, "0.031 s"), (29.4, "29 s"), (600, "10 min"), (49_000, "14 h")])
def test_a_plan_tells_time_as_people_do(seconds, told):
    assert Expected(8, 8, 1, 8, 0, 0, seconds).text().endswith(f"about {told}")
