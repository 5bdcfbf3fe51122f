"""The command line as a stranger uses it, on a tiny model: files, folders, errors, exit codes."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from addsr import batch, jobs, load
from addsr.cli import app
from addsr.image.read import read_picture
from addsr.options import RestoreOptions
from addsr.upscaler import Upscaler
from tests.published import write_published


@pytest.fixture
def model(compact_pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    compact_pipeline.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def addsr(monkeypatch, capsys, model):
    """Run the command in this process -> (exit code, stdout, stderr)."""

    def run(*words):
        words = [str(w) for w in words]
        if words[0] == "upscale" and "--model" not in words:
            words += ["--model", model]
        monkeypatch.setattr(sys, "argv", ["addsr", *words])
        with pytest.raises(SystemExit) as stop:
            app.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return stop.value.code or 0, out, " ".join(err.split())

    return run


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "in" / "photo.jpg"
    path.parent.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(path)
    return path


def test_fidelity_of_a_model_that_has_one_set_of_weights(addsr, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    code, _, err = addsr("upscale", tmp_path / "a.png", "-o", tmp_path / "new" / "b.png", "--fidelity", 0.5)
    assert (code, "one set of weights only" in err) == (2, True)
    assert not (tmp_path / "new").exists()


def test_fidelity_of_the_bundled_model(addsr, photo):
    for fidelity in (0, 1):
        words = ("-o", photo.with_name(f"{fidelity}.png"), "--model", "compact", "--fidelity", fidelity)
        assert addsr("upscale", photo, *words)[0] == 0
    detailed, faithful = (Image.open(photo.with_name(f"{fidelity}.png")).tobytes() for fidelity in (0, 1))
    assert detailed != faithful


def test_options_without_effect_are_named(addsr, photo):
    _, _, err = addsr("upscale", photo, "--prompt", "a cat", "--guidance-scale", 2)
    assert "words, --guidance-scale" in err
    assert "--compat" not in err
    words = ("--psr-weight", 0.5, "--steps", 1, "--ext", "jpg", "-o", photo.with_name("named.png"))
    assert "--psr-weight (one step), --ext (OUT is a file)" in addsr("upscale", photo, *words)[2]


def test_beside_the_input(addsr, photo):
    code, _, err = addsr("upscale", photo)
    assert code == 0
    assert "1 picture, 0.00 megapixels" in err
    assert Image.open(photo.with_name("photo_x4.png")).size == (64, 48)


def test_to_a_file(addsr, photo, tmp_path):
    assert addsr("upscale", photo, "-o", tmp_path / "new" / "b.webp", "-s", 2.5)[0] == 0
    assert Image.open(tmp_path / "new" / "b.webp").size == (40, 30)


def test_to_a_folder(addsr, photo, tmp_path):
    shutil.copy(photo, photo.with_name("other.png"))
    shutil.copy(photo, photo.with_name("scan.tif"))
    Image.open(photo).save(photo.with_name("scan.tif"))
    assert addsr("upscale", photo.parent, "-o", tmp_path / "out", "--suffix", "")[0] == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["other.png", "photo.png", "scan.tif"]
    assert addsr("upscale", photo, "-o", tmp_path / "out", "-s", 2, "--ext", "jpg")[0] == 0
    assert (tmp_path / "out" / "photo_x2.jpg").exists()


def test_a_folder_again_does_not_enlarge_its_results(addsr, photo):
    assert addsr("upscale", photo.parent)[0] == 0
    assert addsr("upscale", photo.parent, "--overwrite")[0] == 0
    assert sorted(p.name for p in photo.parent.iterdir()) == ["photo.jpg", "photo_x4.png"]


def test_names_that_collide_are_all_kept(addsr, photo, tmp_path):
    Image.open(photo).save(photo.with_suffix(".png"))
    assert addsr("upscale", photo.parent, "-o", tmp_path / "out")[0] == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["photo_png_x4.png", "photo_x4.png"]


def test_existing_outputs_are_kept(addsr, photo):
    photo.with_name("photo_x4.png").write_bytes(b"mine")
    code, _, err = addsr("upscale", photo)
    assert code == 1
    assert "exists already" in err
    assert photo.with_name("photo_x4.png").read_bytes() == b"mine"
    assert addsr("upscale", photo, "--overwrite")[0] == 0
    assert photo.with_name("photo_x4.png").read_bytes() != b"mine"


def test_the_input_is_never_overwritten(addsr, photo):
    image = photo.with_suffix(".png")
    Image.open(photo).save(image)
    before = image.read_bytes()
    code, _, err = addsr("upscale", image, "-o", image, "--overwrite")
    assert code == 1
    assert "an input itself" in err
    assert image.read_bytes() == before


def test_one_bad_file_does_not_stop_the_rest(addsr, photo, tmp_path):
    bad = photo.with_name("bad.png")
    bad.write_bytes(photo.read_bytes()[:300])
    code, out, err = addsr("upscale", bad, photo, tmp_path / "none.png", "-o", tmp_path / "out", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [row["status"] for row in rows] == ["error", "ok", "error"]
    assert rows[1]["width"] == 64
    assert rows[1]["seed"] == 0
    assert "1 picture, 2 failed" in err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["photo_x4.png"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere.png"], 1, "no such file"),
        (["PHOTO", "-s", "0.5"], 2, "scale is 0.5"),
        (["PHOTO", "--steps", "9"], 2, "steps is 9"),
        (["PHOTO", "--psr-weight", "-1"], 2, "psr_weight"),
        (["PHOTO", "--tile", "x"], 2, "--tile"),
        (["PHOTO", "--ext", "gif"], 2, "--ext"),
        (["PHOTO", "--suffix", ""], 2, "--suffix"),
        (["PHOTO", "--suffix", "a/b"], 2, "--suffix"),
        (["PHOTO", "--model", "nonesuch"], 2, "unknown model"),
        (["PHOTO", "--device", "tpu"], 2, "unknown device"),
        (["PHOTO", "--precision", "int8"], 2, "unknown precision"),
        (["PHOTO", "-o", "PHOTO/below/it"], 2, "cannot be made"),
        (["PHOTO", "--nonsense"], 2, "nonsense"),
        ([], 2, "INPUT"),
    ],
)
def test_errors_are_one_sentence(addsr, photo, words, code, message):
    result, _, err = addsr("upscale", *[word.replace("PHOTO", str(photo)) for word in words])
    assert result == code
    assert message in err
    assert [p.name for p in photo.parent.iterdir()] == [photo.name]


def test_a_folder_without_pictures(addsr, tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    code, _, err = addsr("upscale", tmp_path)
    assert code == 1
    assert "no picture in the folder" in err


def test_an_out_that_looks_like_a_file_is_a_folder_for_many(addsr, photo, tmp_path):
    assert addsr("upscale", photo.parent, "-o", tmp_path / "all.png")[0] == 0
    assert [p.name for p in (tmp_path / "all.png").iterdir()] == ["photo_x4.png"]


def test_another_input_is_never_overwritten(addsr, photo):
    image = photo.with_name("photo_x4.png")
    Image.open(photo).save(image)
    before = image.read_bytes()
    code, _, err = addsr("upscale", photo, image, "--overwrite")
    assert code == 1
    assert "an input itself" in err
    assert image.read_bytes() == before
    assert photo.with_name("photo_x4_x4.png").exists()


def test_an_ending_that_cannot_be_written(addsr, photo, tmp_path):
    code, _, err = addsr("upscale", photo, "-o", tmp_path / "a.gif")
    assert code == 2
    assert "cannot write .gif" in err
    assert not (tmp_path / "a.gif").exists()


def test_wrong_usage_leaves_no_folder(addsr, photo, tmp_path):
    assert addsr("upscale", photo, "-o", tmp_path / "new", "--model", "nonesuch")[0] == 2
    assert not (tmp_path / "new").exists()


def test_a_name_that_is_too_long_fails_alone(addsr, photo):
    long = photo.with_name("x" * 251 + ".jpg")
    shutil.copy(photo, long)
    code, _, err = addsr("upscale", long, photo)
    assert code == 1
    assert "1 picture, 1 failed" in err


def test_a_file_in_the_place_of_the_folder(addsr, photo, tmp_path):
    (tmp_path / "out").write_text("")
    assert addsr("upscale", photo, "-o", tmp_path / "out")[0] == 2


def test_a_full_disk_fails_that_picture(addsr, photo, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    code, _, err = addsr("upscale", photo)
    assert code == 1
    assert "disk is full" in err
    assert [p.name for p in photo.parent.iterdir()] == [photo.name]


def test_info(addsr):
    code, out, _ = addsr("info", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["precision"] in ("float32", "bfloat16", "float16")
    assert {"name", "parameters", "bytes", "licence", "sha256"} <= set(report["models"][0])
    told = addsr("info")[1]
    assert "compact" in told
    assert json.loads(out)["models"][0]["sha256"] in told


def test_version_and_help(addsr):
    assert addsr("--version")[1].startswith("addsr 0")
    code, out, _ = addsr("--help")
    assert code == 0
    assert "upscale" in out


def test_help_imports_nothing_heavy():
    code = "import sys, addsr.cli.app; print([m for m in ('torch', 'diffusers', 'numpy', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_interrupted(photo, model):
    for i in range(500):  # more than can be done before the signal
        shutil.copy(photo, photo.with_name(f"p{i}.jpg"))
    command = [sys.executable, "-m", "addsr", "upscale", str(photo.parent), "--model", model]

    def heed() -> None:  # tests that a shell runs in the background have inherited that the signal is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    deadline = time.monotonic() + 60
    while not list(photo.parent.glob("*_x4.png")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not list(photo.parent.glob(".*.part"))


def test_a_hard_link_to_an_input_is_never_overwritten(addsr, photo):
    os.link(photo, photo.with_name("photo_x4.png"))
    code, _, err = addsr("upscale", photo, "--overwrite")
    assert code == 1
    assert "an input itself" in err


@pytest.mark.parametrize("fails", [False, True])
def test_no_picture_outlives_its_turn(photo, model, fails):
    results, alive = [], []

    def read(path):
        gc.collect()
        alive.append(sum(result() is not None for result in results))
        return read_picture(path)

    def write(image, *_args, **_more):
        results.append(weakref.ref(image))
        if fails:
            raise OSError(28, "full")

    for name in "ab":
        shutil.copy(photo, photo.with_name(f"{name}.jpg"))
    planned = jobs.plan([photo.parent], None, "_x4", "auto", False)
    upscaler = load(model, device="cpu")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(batch, "read_picture", read)
        patched.setattr(batch, "write_picture", write)
        kept = list(batch.run(planned, upscaler, RestoreOptions(), "0", False, lambda *_: None))
    assert alive == [0, 0, 0]
    assert [str(done.error) for done in kept] == ["[Errno 28] full" if fails else "None"] * 3


def test_plan_takes_each_input_once(photo):
    assert len(jobs.plan([photo, photo, photo.parent], None, "_x4", "auto", False)) == 1


@pytest.mark.parametrize("again", [("-s", 4), ("-s", 2)])
def test_a_folder_leaves_out_all_results_of_an_earlier_run(addsr, photo, again):
    Image.open(photo).save(photo.with_suffix(".png"))
    for name in ("b_x2000.png", "c_png.png", "photo_small_x2.png"):
        Image.open(photo).save(photo.with_name(name))
    addsr("upscale", photo.parent)
    sources = [job.source.name for job in jobs.plan([photo.parent], None, f"_x{again[1]}", "auto", True)]
    assert sources == ["b_x2000.png", "c_png.png", "photo.jpg", "photo.png", "photo_small_x2.png"]


def test_a_plan_is_of_the_run_that_is_asked_for(addsr, photo, tmp_path):
    Image.open(photo).save(photo.with_name("photo_x4.png"))
    (photo.parent / "broken.png").write_bytes(b"x")
    code, out, err = addsr("upscale", photo.parent, "-o", tmp_path / "out", "--suffix", "", "--plan", "--json")
    rows = {json.loads(line)["input"].rpartition("/")[2]: json.loads(line) for line in out.splitlines()}
    assert code == 1
    assert list(rows) == ["broken.png", "photo.jpg", "photo_x4.png"]
    assert rows["broken.png"]["status"] == "error"
    assert "broken.png" in err
    assert not (tmp_path / "out").exists()


def test_an_error_names_its_picture(addsr, photo, monkeypatch):
    monkeypatch.setattr("addsr.upscaler.MAX_OUTPUT_PIXELS", 100)
    photo = photo.rename(photo.with_name("a.jpg"))  # a letter of any sentence
    code, out, err = addsr("upscale", photo, "--json")
    assert code == 1
    assert f"error: {photo}: 16×12 at scale 4 takes" in err
    assert json.loads(out)["error"] in err


def test_a_plan_knows_what_has_no_effect(addsr, photo):
    peaks = []
    for words in ((), ("--guidance-scale", 5)):
        code, out, err = addsr("upscale", photo, "--plan", "--json", *words)
        assert (code, "without effect" in err) == (0, bool(words))
        peaks.append(json.loads(out)["peak_bytes"])
    assert peaks[0] == peaks[1]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_rows_go_to_stdout_under_a_progress_bar(tmp_path):
    import pty

    code = """
from addsr.cli.report import Report, _print_row
with Report(as_json=True, debug=False).progress(1):
    _print_row({"input": "a"})
"""
    terminal, end = pty.openpty()
    with (tmp_path / "rows.jsonl").open("w") as rows:
        subprocess.run(
            [sys.executable, "-c", code], stdout=rows, stderr=end, check=True, env=os.environ | {"TERM": "xterm"}
        )
    os.close(end)
    os.close(terminal)
    assert (tmp_path / "rows.jsonl").read_text() == '{"input": "a"}\n'


def test_a_plan_writes_nothing(addsr, photo):
    code, out, _ = addsr("upscale", photo, "--plan")
    assert code == 0
    assert "64×48 in 1 tile" in out
    row = json.loads(addsr("upscale", photo, "--plan", "--json", "-s", 2)[1])
    assert (row["width"], row["height"]) == (32, 24)
    assert row["tile"] == 32  # pixels of the result
    assert row["peak_bytes"] > row["weights_bytes"] > 0
    assert not list(photo.parent.glob("*.png"))


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return write_published(tmp_path_factory.mktemp("release"))


def test_a_published_model_from_the_command_line(addsr, photo, release, tmp_path):
    code, out, _ = addsr("tag", photo, "--model", release)
    assert (code, out) == (0, "cat, sky\n")
    code, out, err = addsr("tag", photo, tmp_path / "no.jpg", "--json", "--model", release)
    assert (code, json.loads(out)["tags"]) == (1, ["cat", "sky"])
    assert "no.jpg" in err
    assert addsr("tag", photo, "--model", "compact")[0] == 1
    assert addsr("tag", photo, "--write", "--model", release)[0] == 0
    caption = photo.with_suffix(".txt")
    assert caption.read_text() == "cat, sky\n"
    assert addsr("tag", photo, "--write", "--model", release)[0] == 0
    caption.write_text("my own words")
    code, _, err = addsr("tag", photo, "--write", "--model", release)
    assert (code, caption.read_text()) == (1, "my own words")
    assert f"{caption}: there is another caption" in err
    caption.unlink()
    code, _, err = addsr("convert", release, "-o", tmp_path / "converted")
    assert (code, "18 files" in err) == (0, True)
    assert addsr("convert", release, "-o", tmp_path / "converted")[0] == 1
    words = ("--steps", 2, "--prompt", "y " * 60, "--json", "-o", tmp_path / "out")
    code, out, err = addsr("upscale", photo, "--model", tmp_path / "converted", *words)
    assert (code, json.loads(out)["guidance_scale"]) == (0, 1.0)
    assert err.count("warning: the prompt '") == 1
    code, out, _ = addsr("upscale", photo, "--model", release, "--plan", "--json")
    assert json.loads(out)["tiles"] == 1
    assert addsr("upscale", photo, "--model", release, "--steps", 5)[0] == 2


def test_convert_prints_what_does_not_fit(addsr, release, tmp_path):
    shutil.copytree(release.parent, tmp_path / "models")
    path = tmp_path / "models" / "addsr" / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    names = [name for name in state if "image_attentions" in name][:9]
    save_file({name: value for name, value in state.items() if name not in names}, path)
    code, out, err = addsr("convert", tmp_path / "models" / "addsr", "-o", tmp_path / "out")
    assert code == 1
    assert sorted(out.splitlines()) == sorted(f"missing: {name}" for name in names)
    assert "9 missing" in err
    assert not (tmp_path / "out").exists()


def test_downloading_lists_and_refuses(addsr, monkeypatch):
    assert "sd2-base: Stable Diffusion" in addsr("download", "--list")[1]
    assert addsr("download")[0] == 2
    assert "nothing is called 'x'" in addsr("download", "x")[2]


def test_a_broken_off_run_goes_on(addsr, photo, tmp_path):
    second, out = photo.with_name("second.png"), tmp_path / "out"
    Image.open(photo).save(second)
    assert addsr("upscale", photo, "-o", out)[0] == 0
    before = (out / "photo_x4.png").read_bytes()
    code, _, err = addsr("upscale", photo.parent, "-o", out)
    assert code == 1
    assert "use --overwrite to replace it, or --skip-existing" in err
    (out / "second_x4.png").unlink()
    code, told, err = addsr("upscale", photo.parent, "-o", out, "--skip-existing", "--json")
    assert [json.loads(line)["status"] for line in told.splitlines()] == ["skipped", "ok"]
    assert (code, "1 picture, 1 skipped, 0.00 megapixels" in err) == (0, True)
    assert (out / "photo_x4.png").read_bytes() == before
    code, _, err = addsr("upscale", photo.parent, "-o", out, "--skip-existing")
    assert (code, "0 pictures, 2 skipped" in err) == (0, True)
    assert "exists already: skipped" in err
    assert addsr("upscale", photo, "--skip-existing", "--overwrite")[0] == 2


def test_an_interrupted_run_says_how_to_go_on(addsr, photo, monkeypatch, tmp_path):
    Image.open(photo).save(photo.with_name("second.png"))
    restore, calls = Upscaler.restore, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return restore(*arguments)

    monkeypatch.setattr(Upscaler, "restore", interrupted)
    code, _, err = addsr("upscale", photo.parent, "-o", tmp_path / "out")
    assert (code, "interrupted after 1 picture; --skip-existing goes on from there" in err) == (130, True)


def test_pictures_of_a_folder_that_are_left_out_are_named(addsr, photo, tmp_path):
    folder = photo.parent
    (folder / "1950s").mkdir()
    Image.open(photo).save(folder / "1950s" / "old.png")
    for name in ("phone.heic", "raw.nef", "notes.txt", "._hidden.heic"):
        (folder / name).write_bytes(b"x")
    (folder / "alias.jpg").symlink_to(photo)
    code, _, err = addsr("upscale", folder, "-o", tmp_path / "out")
    assert code == 0
    assert "of a kind that is not read: phone.heic and 1 more" in err
    assert "in subfolders, which --recursive enters: 1950s" in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["photo_x4.png"]
    (tmp_path / "again").mkdir()
    code, _, err = addsr("upscale", folder / "1950s", "-o", folder / "1950s" / "out")
    assert (code, "left out" in err) == (0, False)


def test_subfolders_are_entered_and_made_again(addsr, photo, tmp_path):
    folder = photo.parent
    for name in ("b/a", "b/.trash", "c", "out"):
        (folder / name).mkdir(parents=True)
    for name in ("b/one.png", "b/a/one.png", "b/a/one_x4.png", "b/.trash/old.png", "out/made.png"):
        Image.open(photo).save(folder / name)
    (folder / "again").symlink_to(folder / "b")
    assert addsr("upscale", folder, "-r", "-o", folder / "out")[0] == 0
    made = ["b/a/one_x4.png", "b/a/one_x4_x4.png", "b/one_x4.png", "made.png", "photo_x4.png"]
    assert sorted(str(p.relative_to(folder / "out")) for p in (folder / "out").rglob("*.png")) == made
    code, _, err = addsr("upscale", folder, "-r", "-o", folder / "out", "--skip-existing")
    assert (code, "0 pictures, 4 skipped" in err) == (0, True)
    assert "in linked folders, which are not entered: again" in err
    code, out, err = addsr("upscale", folder / "b", "-r", "--plan", "--json")  # results would lie beside their sources
    assert (code, [json.loads(line)["input"] for line in out.splitlines()]) == (
        0,
        [str(folder / "b" / "one.png"), str(folder / "b" / "a" / "one.png")],
    )
    assert "named like results of an earlier run: one_x4.png" in err
    code, _, err = addsr("upscale", folder / "c", "-r", "-o", tmp_path / "none")
    assert (code, "no picture in the folder" in err) == (1, True)


def test_a_subfolder_that_cannot_be_made_stops_no_other(addsr, photo, tmp_path):
    for name in ("b", "c"):
        (photo.parent / name).mkdir()
        Image.open(photo).save(photo.parent / name / "one.png")
    assert addsr("upscale", photo.parent, "-r", "-o", tmp_path / "out", "--plan")[0] == 0
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b").touch()
    code, _, err = addsr("upscale", photo.parent, "-r", "-o", tmp_path / "out")
    assert (code, f"{tmp_path / 'out' / 'b'}: the folder cannot be made" in err) == (1, True)
    assert [path.name for path in sorted((tmp_path / "out").rglob("*.png"))] == ["one_x4.png", "photo_x4.png"]


@pytest.mark.parametrize("word", ["", "-o"])
def test_an_empty_path_is_not_the_current_folder(word, addsr, photo, monkeypatch):
    monkeypatch.chdir(photo.parent)
    code, _, err = addsr("upscale", *([photo, "-o", ""] if word else [""]))
    assert (code, "an empty path" in err) == (2, True)
    assert [path.name for path in photo.parent.iterdir()] == [photo.name]


@pytest.mark.parametrize("out", ["out.heic", "-"])
def test_an_out_that_cannot_be_a_file_is_no_folder(out, addsr, photo, monkeypatch):
    monkeypatch.chdir(photo.parent)
    assert addsr("upscale", photo, "-o", out)[0] == 2
    assert [path.name for path in photo.parent.iterdir()] == [photo.name]


def test_degrade_names_what_it_leaves_out(addsr, tmp_path):
    (tmp_path / "data").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
        tmp_path / "data" / "a.png"
    )
    Image.new("RGB", (16, 16)).save(tmp_path / "data" / "small.png")
    code, _, err = addsr("degrade", tmp_path / "data", "-o", tmp_path / "pairs", "--case", "bicubic")
    assert (code, "left out, too small:" in err, "small.png" in err) == (0, True, True)
