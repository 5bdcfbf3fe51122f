"""The loop: its clock, checkpoints, resuming, accumulation and several processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from addsr.data.pairs import Pairs
from addsr.errors import TrainingError
from addsr.training.checkpoint import latest_checkpoint, save_checkpoint
from addsr.training.ema import EMA
from addsr.training.lock import locked
from addsr.training.loop import LoopSettings, parts_of, rate_at
from addsr.training.report import Reporter
from addsr.training.tasks.student import StudentTask
from tests.training.runs import make_loop, student_task

ROOT = Path(__file__).resolve().parents[2]
BRISK = {"warmup": 0, "rate": 1e-3}
FIXED = {
    "adversarial_weight": "fixed",
    "distillation": 0,
    "trainable": ["*"],
}  # an adaptive weight is a mean over parts, so not quite that of the whole


def weights(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = latest_checkpoint(run)
    return {f"{path.stem}.{k}": v for path in checkpoint.glob("*.safetensors") for k, v in load_file(path).items()}


def assert_moved_alike(a: Path, b: Path, task: StudentTask, names: tuple[str, ...]) -> None:
    """The runs ended in the same place but for rounding, which AdamW enlarges where a gradient is almost zero: by less than
    a fiftieth of the way that they went.
    """
    ours, theirs = weights(a), weights(b)
    for network in names:
        keys = [f"{network}.{key}" for key, _ in task.networks[network].named_parameters()]
        start = {f"{network}.{key}": value.detach() for key, value in task.networks[network].named_parameters()}
        way = sum((ours[key] - start[key]).abs().sum() for key in keys)
        apart = sum((ours[key] - theirs[key]).abs().sum() for key in keys)
        assert way > 0
        assert apart < way / 50, network


def start(*arguments: object, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.training.runs", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment})


def test_a_run_trains_reports_and_keeps_checkpoints(folder, lpips_weights, tmp_path):
    loop = make_loop(folder, lpips_weights, tmp_path / "run", {})
    before = {name: value.clone() for name, value in loop.task.networks["unet"].state_dict().items()}
    assert loop.run()
    rows = [json.loads(line) for line in (tmp_path / "run" / "stats.jsonl").read_text().splitlines()]
    assert [row["images"] for row in rows] == [8, 16, 24]
    named = ("l1", "lpips", "distillation", "adversarial", "autoencoder", "gradient")
    assert all(f"generator/{name}" in rows[-1] for name in named)
    assert any("generator/l1_later" in row for row in rows)
    assert rows[-1]["discriminator/total"] > 0
    kept = sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*"))
    assert kept == ["checkpoint-000000016", "checkpoint-000000024"]
    assert any(not torch.equal(v, before[k]) for k, v in loop.task.networks["unet"].state_dict().items())


def test_a_killed_run_goes_on_bit_by_bit(folder, lpips_weights, tmp_path):
    whole = make_loop(folder, lpips_weights, tmp_path / "whole", {}, images=40)
    torch.set_num_threads(1)
    whole.run()
    process = start(folder, lpips_weights, tmp_path / "killed", json.dumps({"images": 40}))
    while latest_checkpoint(tmp_path / "killed") is None:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    process.wait()
    resumed = make_loop(folder, lpips_weights, tmp_path / "killed", {}, images=40)
    assert 0 < resumed.resume() < 40
    resumed.run()
    ours, theirs = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_checkpoint_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    network, synced = torch.nn.Linear(2, 2), set()
    network.bias.requires_grad_(False)

    def fsync(file: int) -> None:
        assert not (tmp_path / "checkpoint-000000008").exists()
        synced.add(os.fstat(file).st_ino)

    monkeypatch.setattr(os, "fsync", fsync)
    save_checkpoint(tmp_path, 8, {"unet": network}, {}, {"unet": torch.optim.AdamW([network.weight])}, {}, keep=1)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in written} == {"unet.safetensors", "optimizers.pt", "state.json"}
    assert synced == {path.stat().st_ino for path in written}


def test_a_checkpoint_that_cannot_be_written_is_an_error_that_keeps_the_last(tmp_path, monkeypatch):
    network = torch.nn.Linear(2, 2)
    parts = {"unet": network}, {}, {"unet": torch.optim.AdamW(network.parameters())}, {}
    save_checkpoint(tmp_path, 8, *parts, keep=1)

    def full(*_args, **_more):
        raise RuntimeError("[enforce fail at inline_container.cc:603] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        TrainingError, match=r"cannot be written .*unexpected pos.*; the last one is checkpoint-000000008"
    ):
        save_checkpoint(tmp_path, 16, *parts, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000000008"]


def test_a_checkpoint_that_cannot_be_removed_is_no_end_and_no_checkpoint(tmp_path, monkeypatch):
    parts = {"unet": torch.nn.Linear(2, 2)}, {}, {}, {}
    save_checkpoint(tmp_path, 8, *parts, keep=1)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path, ignore_errors=False: None)  # a file in it is open, on NFS
        save_checkpoint(tmp_path, 16, *parts, keep=1)
    assert {path.name for path in tmp_path.iterdir()} == {".checkpoint-000000008.part", "checkpoint-000000016"}
    save_checkpoint(tmp_path, 24, *parts, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000000024"]


def test_what_a_killed_save_left_goes_with_the_next(tmp_path):
    network, left = torch.nn.Linear(2, 2), tmp_path / ".checkpoint-000000004.part"
    left.mkdir()
    save_checkpoint(tmp_path, 8, {"unet": network}, {}, {}, {}, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000000008"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_others_may_read_a_checkpoint_as_any_new_file(tmp_path):
    network = torch.nn.Linear(2, 2)
    old = os.umask(0o027)
    try:
        saved = save_checkpoint(tmp_path, 8, {"unet": network}, {}, {}, {}, keep=1)
    finally:
        os.umask(old)
    assert {path.stat().st_mode & 0o777 for path in saved.iterdir()} == {0o640}


def test_a_folder_has_one_training_at_a_time(tmp_path):
    busy = pytest.raises(TrainingError, match="another training is at work in this folder")
    with locked(tmp_path / "run"), busy, locked(tmp_path / "run"):
        pass
    with locked(tmp_path / "run"):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked")
def test_a_killed_training_lets_go_of_its_folder_at_once(tmp_path):
    """Those that make pairs for it outlive it by seconds."""
    program = "with locked(Path(sys.argv[1])):\n    print(os.fork(), flush=True)\n    time.sleep(60)"
    imports = "import os, sys, time\nfrom pathlib import Path\nfrom addsr.training.lock import locked"
    command = [sys.executable, "-c", f"{imports}\n{program}", str(tmp_path / "run")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        maker = max(int(process.stdout.readline()), int(process.stdout.readline()))  # in itself, os.fork() is 0
        try:
            with pytest.raises(TrainingError, match="another training"), locked(tmp_path / "run"):
                pass
            process.kill()
            process.wait()
            with locked(tmp_path / "run"):
                pass
        finally:
            process.kill()
            os.kill(maker, signal.SIGKILL)


# the second was killed before its first checkpoint
@pytest.mark.parametrize(("images", "kept", "expected"), [(16, 8, [4, 8, 12, 16]), (8, 0, [4, 8])])
def test_reports_after_the_checkpoint_are_written_once(images, kept, expected, folder, lpips_weights, tmp_path):
    make_loop(folder, lpips_weights, tmp_path / "run", {}, images=images, save=8, report=4).run()
    shutil.rmtree(tmp_path / "run" / f"checkpoint-{images:09d}")
    again = make_loop(folder, lpips_weights, tmp_path / "run", {}, images=images, save=8, report=4)
    assert again.resume() == kept
    again.run()
    rows = [json.loads(line)["images"] for line in (tmp_path / "run" / "stats.jsonl").read_text().splitlines()]
    assert rows == expected


def test_a_loss_of_some_parts_is_the_mean_of_those(folder, lpips_weights, tmp_path):
    loop = make_loop(folder, lpips_weights, tmp_path / "run", {"adversarial": 0}, images=4, batch=4, accumulate=4)
    losses, seen = loop.task.losses, []

    def sometimes(player, batch, moment):
        named = losses(player, batch, moment)
        if int(batch["place"][0]) % 2:
            seen.append(named["l1"].item())
            named["odd"] = named["l1"]
        return named

    loop.task.losses = sometimes
    (parts,) = loop._iterations()
    values = loop.step(parts, 0.0)
    assert values["generator/odd"] == pytest.approx(sum(seen) / 2)


def test_progress_counts_time_where_time_ends_the_run(tmp_path, capsys):
    with Reporter(tmp_path, 1000, quiet=False, main=True) as reporter:
        reporter.advance(10, 60, [0.01, 0.1])
        reporter.advance(20, 120, [0.02, 0.2])
        reporter.report(20, 120, {"generator/total": 0.5})
    told = capsys.readouterr().err  # no terminal: a line a report
    assert "20/1000 images, 0.2/s, 8 min left total 0.5" in told


def test_what_ends_a_run_is_known_by_its_share(folder, lpips_weights, tmp_path):
    loop = make_loop(folder, lpips_weights, tmp_path, {}, images=100, minutes=10.0, max_minutes=4.0)
    loop.images, loop.seconds = 25, 300.0
    assert loop._shares(60.0) == [0.25, 0.5, 0.25]


def test_a_gradient_that_is_not_finite_moves_nothing(folder, lpips_weights, tmp_path):
    loop = make_loop(folder, lpips_weights, tmp_path / "run", {"adversarial": 0}, images=8)
    parameter = loop.task.student.unet.conv_in.weight
    before = parameter.detach().clone()
    parameter.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(TrainingError, match=r"generator/gradient is nan; last good checkpoint: none yet"):
        loop.run()
    assert torch.equal(parameter, before)


def test_max_minutes_stops_with_a_checkpoint(folder, lpips_weights, tmp_path):
    loop = make_loop(folder, lpips_weights, tmp_path / "run", {}, images=4000, max_minutes=0.001)
    assert not loop.run()
    assert latest_checkpoint(tmp_path / "run") is not None
    assert 0 < loop.images < 4000


def test_minutes_anneal_to_the_end(folder, lpips_weights, tmp_path):
    loop = make_loop(folder, lpips_weights, tmp_path / "run", {}, images=4000, minutes=0.02)
    assert loop.run()
    assert loop.images < 4000
    assert (
        loop.optimizers["generator"].param_groups[0]["lr"] < loop.settings.rate / 2
    )  # one step before the end, or less


def test_accumulation_equals_the_whole_batch(folder, lpips_weights, tmp_path):
    # no adversary: its spectral norms iterate once a forward pass, and parts are more passes
    alone = FIXED | {"adversarial": 0}
    for parts in (1, 2):
        make_loop(folder, lpips_weights, tmp_path / str(parts), alone, images=8, accumulate=parts, **BRISK).run()
    assert_moved_alike(tmp_path / "1", tmp_path / "2", student_task(lpips_weights, **alone), ("unet", "vae"))


def test_two_processes_equal_one_at_the_summed_batch(folder, lpips_weights, tmp_path):
    # no LPIPS: its random network divides by features near zero, whose rounding follows the batch; on an AMD that is 4 % of
    # the way after four updates, in parts of one process too, and without it 0.01 %
    alike = FIXED | {"lpips": 0, "lpips_final": 0}
    options = json.dumps({"images": 16, "task": alike, **BRISK})
    single = start(folder, lpips_weights, tmp_path / "one", options)
    assert single.wait() == 0
    port = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20000 + os.getpid() % 20000), "CUDA_VISIBLE_DEVICES": ""}
    if torch.backends.mps.is_available():  # accelerate has one process on a Mac's GPU
        port["ACCELERATE_USE_CPU"] = "true"
    ranks = [
        start(
            folder,
            lpips_weights,
            tmp_path / "two",
            options,
            **port,
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE="2",
            DUMP=str(tmp_path / f"rank{rank}.safetensors"),
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in ranks] == [0, 0]
    a, b = (load_file(tmp_path / f"rank{rank}.safetensors") for rank in range(2))
    for name, value in a.items():
        assert torch.equal(value, b[name]), name
    task = student_task(lpips_weights, **alike)
    assert_moved_alike(tmp_path / "one", tmp_path / "two", task, ("unet", "vae", "discriminator"))


@pytest.mark.parametrize("measured", [False, True])
def test_a_model_that_the_last_update_ruined_is_no_checkpoint(measured, folder, lpips_weights, tmp_path):
    loop = make_loop(folder, lpips_weights, tmp_path / "run", {}, images=24, keep=1)
    kept = loop.step

    class Measures:
        def __call__(self, images, averages):
            return {"psnr_1": float("nan") if measured and images == 24 else 20.0}

        def has(self, images):
            return False

    def ruining(parts, progress):
        values = kept(parts, progress)
        if loop.images == 20 and not measured:
            with torch.no_grad():
                loop.task.student.unet.conv_in.weight.fill_(float("nan"))
        return values

    loop.step, loop.measure = ruining, Measures()
    what = "psnr_1 is nan" if measured else "a weight of unet is nan"
    with pytest.raises(TrainingError, match=rf"after 24 images: {what}.*last good checkpoint: .*checkpoint-000000016"):
        loop.run()
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "run").values())


def test_a_loss_that_is_not_finite_stops(folder, lpips_weights, tmp_path):
    loop = make_loop(folder, lpips_weights, tmp_path / "run", {}, images=40)
    kept = loop.step

    def poisoned(parts, progress):
        if loop.images == 16:
            with torch.no_grad():
                loop.task.student.vae.decoder.linear.weight.fill_(float("inf"))
        return kept(parts, progress)

    loop.step = poisoned
    with pytest.raises(TrainingError, match=r"after 16 images.*last good checkpoint: .*checkpoint-000000016"):
        loop.run()
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "run").values())


def test_checkpoints_of_other_networks_and_damaged_ones_are_refused(folder, lpips_weights, tmp_path):
    make_loop(folder, lpips_weights, tmp_path / "run", {}, images=8).run()
    other = make_loop(folder, lpips_weights, tmp_path / "run", {}, images=8)
    other.task.networks["unet"].conv_in = torch.nn.Conv2d(5, 8, 3)
    with pytest.raises(TrainingError, match="does not fit this run or is damaged"):
        other.resume()
    (latest_checkpoint(tmp_path / "run") / "unet.safetensors").write_bytes(b"broken")
    with pytest.raises(TrainingError, match="does not fit this run or is damaged"):
        make_loop(folder, lpips_weights, tmp_path / "run", {}, images=8).resume()


def test_the_rate_warms_up_and_falls():
    settings = LoopSettings(images=1000, batch=10, rate=1.0, final_rate=0.1, warmup=100)
    assert rate_at(0, 0, settings) == pytest.approx(0.1)
    assert rate_at(500, 0.5, settings) == pytest.approx(0.55)
    assert rate_at(990, 1.0, settings) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "int8"}, "loop.precision is 'int8'"),
        ({"batch": 0}, "loop.batch is 0"),
        ({"accumulate": 0}, "loop.accumulate is 0"),
    ],
)
def test_bad_loop_settings_are_refused(settings, message, folder, lpips_weights, tmp_path):
    with pytest.raises(TrainingError, match=message):
        make_loop(folder, lpips_weights, tmp_path / "run", {}, **settings)


@pytest.mark.parametrize(
    ("batch", "accumulate", "processes", "parts"),
    [(8, 1, 1, 1), (8, 4, 1, 4), (8, 4, 2, 2), (8, 4, 8, 1), (6, 4, 1, 6), (6, 6, 3, 2), (32, 16, 8, 2), (2, 8, 1, 2)],
)
def test_processes_share_the_parts_of_a_batch(batch, accumulate, processes, parts):
    assert parts_of(LoopSettings(images=1, batch=batch, accumulate=accumulate), processes) == parts


def test_a_batch_that_processes_cannot_share_is_refused():
    with pytest.raises(TrainingError, match="batch is 6; it must be divisible by the 4 processes"):
        parts_of(LoopSettings(images=1, batch=6), 4)


def test_averaged_weights_follow_and_share_what_is_frozen():
    network = torch.nn.Linear(2, 2)
    network.bias.requires_grad_(False)
    average = EMA(network, 0.5)
    assert average.module.bias is network.bias
    start = network.weight.detach().clone()
    with torch.no_grad():
        network.weight += 1
    average.update(network)  # at first a tenth stays, then two elevenths, up to the decay
    torch.testing.assert_close(average.module.weight.detach(), start + 0.9)
    average.update(network)
    torch.testing.assert_close(average.module.weight.detach(), start + 1 - 0.1 * 2 / 11)
    assert not average.module.weight.requires_grad
    assert network.weight.requires_grad


@pytest.mark.parametrize("accumulate", [1, 2])
def test_all_that_trains_gets_a_gradient_in_bfloat16(accumulate, folder, lpips_weights, tmp_path):
    # a seed at which one of the four pictures is among the fourth that the autoencoder trains on
    settings = {"images": 8, "accumulate": accumulate, "precision": "bf16", "clip": 0, "seed": 2}
    loop = make_loop(
        folder, lpips_weights, tmp_path, {"distillation": 0, "trainable": ["*"], "refine": 1.0}, **settings
    )
    for network in loop.task.networks.values():
        for name, parameter in network.named_parameters():  # zero at first, and stops the gradient of what is before it
            if "conv_out" in name or ".conv2." in name:
                torch.nn.init.normal_(parameter, std=0.01)
    next_parts = next(iter(loop._iterations()))
    before = {name: p.detach().clone() for name, p in loop.task.networks["unet"].named_parameters()}
    loop.step(next_parts, 0.5)
    for network in loop.task.networks.values():
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.dtype == torch.float32, name
    assert any(not torch.equal(p, before[name]) for name, p in loop.task.networks["unet"].named_parameters())


def test_out_of_memory_is_an_error_that_says_what_helps(folder, lpips_weights, tmp_path, monkeypatch):
    loop = make_loop(folder, lpips_weights, tmp_path, {}, images=16)

    def full(*_args):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(loop.task, "losses", full)
    with pytest.raises(TrainingError, match=r"out of memory.*loop\.accumulate.*pairs\.crop.*none yet"):
        loop.run()


@pytest.mark.parametrize(
    "said", ["DataLoader worker (pid 7) is killed by signal: Bus error.", "unable to allocate shared memory(shm)"]
)
def test_a_lost_worker_is_an_error_that_says_what_helps(said, folder, lpips_weights, tmp_path, monkeypatch):
    loop = make_loop(folder, lpips_weights, tmp_path, {}, images=16)

    def lost(*_args):
        raise RuntimeError(said)

    monkeypatch.setattr(loop.task, "losses", lost)
    with pytest.raises(TrainingError, match=r"makes pairs was lost.*shm-size.*loop\.workers.*pairs\.memory.*none yet"):
        loop.run()


def test_an_error_inside_a_worker_is_its_own(folder, lpips_weights, tmp_path, monkeypatch):
    loop = make_loop(folder, lpips_weights, tmp_path, {}, images=16, workers=1)

    def broken(*_args):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(Pairs, "__getitem__", broken)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        loop.run()


def test_processes_that_resume_at_different_places_stop(folder, lpips_weights, tmp_path, monkeypatch):
    make_loop(folder, lpips_weights, tmp_path, {}, images=16).run()
    again = make_loop(folder, lpips_weights, tmp_path, {}, images=16)
    monkeypatch.setattr(again.processes, "mean_of", lambda value: value / 2)  # of this and one that found nothing
    with pytest.raises(TrainingError, match="all must see one folder"):
        again.resume()


def test_a_run_whose_time_is_over_is_not_trained_further(folder, lpips_weights, tmp_path):
    settings = {"images": 24, "minutes": 1e-6}
    make_loop(folder, lpips_weights, tmp_path, {}, **settings).run()
    before = sorted(path.name for path in tmp_path.iterdir())
    again = make_loop(folder, lpips_weights, tmp_path, {}, **settings)
    assert again.resume() == 4
    assert again.run()
    assert again.images == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == before
