"""Photos, pairs and pair folders."""

import json
import pickle
import shutil
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from addsr.data import pairs as pairs_module
from addsr.data.degradation import DegradationSettings, two_order
from addsr.data.draws import Draws
from addsr.data.mild import MildSettings
from addsr.data.pair_folder import write_pairs
from addsr.data.pairs import Pairs, PairSettings, RealPairs
from addsr.data.photos import Photos
from addsr.errors import DataError
from addsr.training.validation import HeldOut
from tests.training.runs import tiny_restorer


def test_pairs_depend_on_seed_and_count_alone(photos):
    settings = PairSettings(crop=64, holdout=2)
    a, b = (Pairs(photos, settings, 0, 10)[7] for _ in range(2))
    assert torch.equal(a["lr"], b["lr"])
    assert not torch.equal(a["lr"], Pairs(photos, settings, 1, 10)[7]["lr"])
    held = Pairs(photos, settings, 0, 10, held_out=True)
    assert not set(held.chosen) & set(Pairs(photos, settings, 0, 10).chosen)


@pytest.mark.parametrize("turns", [True, False])
def test_what_is_up_stays_up_where_crops_are_not_turned(turns, tmp_path):
    rows = np.linspace(0, 255, 96).astype(np.uint8)[:, None, None]
    Image.fromarray(np.broadcast_to(rows, (96, 96, 3)).copy()).save(tmp_path / "dark_above.png")
    pairs = Pairs(Photos([tmp_path]), PairSettings(crop=64, turns=turns), 0, 16)
    upright = [pairs[i]["hr"][:, :8].mean() < pairs[i]["hr"][:, -8:].mean() - 0.2 for i in range(16)]
    assert all(upright) is not turns


def test_photos_come_from_tars_too_with_captions(folder, photos, tmp_path):
    (tmp_path / "0.txt").write_text("noise, coloured\n")
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        tar.add(folder / "0.png", "inside/0.png")
        tar.add(tmp_path / "0.txt", "inside/0.txt")
    shard = Photos([tmp_path / "shard.tar"])
    np.testing.assert_array_equal(shard[0], photos[0])
    assert shard.caption(0) == "noise, coloured"
    assert photos.caption(0) == ""
    assert Pairs(shard, PairSettings(crop=64), 0, 1)[0]["prompt"] == "noise, coloured"
    (tmp_path / "shards").mkdir()
    shutil.copy(tmp_path / "shard.tar", tmp_path / "shards" / "0.tar")
    shutil.copy(folder / "1.png", tmp_path / "shards")
    both = Photos([tmp_path / "shards"])
    assert [Path(name).relative_to(tmp_path / "shards") for name in both.names] == [
        Path("0.tar/inside/0.png"),
        Path("1.png"),
    ]
    assert both.caption(0) == "noise, coloured"
    (tmp_path / "shards" / "notes.tar").write_bytes(b"no tar file" * 100)
    assert Photos([tmp_path / "shards"]).unreadable == [str(tmp_path / "shards" / "notes.tar")]


def test_bad_photos_are_left_out_and_named(folder):
    (folder / "broken.png").write_bytes(b"not a picture")
    Image.new("RGB", (40, 100)).save(folder / "small.png")
    photos = Photos([folder], smallest=64)
    assert len(photos) == 4
    assert [name.rpartition("/")[2] for name in (*photos.unreadable, *photos.too_small)] == ["broken.png", "small.png"]
    assert min(min(size) for size in photos.sizes) == 80


def test_only_photos_are_found(folder, tmp_path):
    """Not a program's hidden files, nor what is told to be none."""
    for place in (".thumbnails/0.png", "._0.png", "pairs/lr/0.png", "pairs/hr/0.jfif"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (96, 96)).save(folder / place, format="PNG")
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        tar.add(folder / "0.png", "./inside/0.png")
        tar.add(folder / "0.png", "./inside/._0.png")
    photos = Photos([folder, tmp_path / "shard.tar"], without=[folder / "pairs" / "lr"])
    ours = [name for name in photos.names if not name.startswith(str(tmp_path / "shard"))]
    assert len(photos) == 4 + 1 + 1
    assert str(folder / "pairs" / "hr" / "0.jfif") in ours


def test_what_is_transparent_has_no_hidden_colours(tmp_path):
    pixels = np.full((64, 64, 4), (200, 100, 50, 255), np.uint8)
    pixels[:, 32:] = (0, 255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.abs(Photos([tmp_path])[0].astype(int) - (200, 100, 50)).max() <= 2


def test_photos_of_every_kind_have_their_own_values(tmp_path):
    ramp = np.tile(np.linspace(0, 255, 64).round().astype(np.uint8), (64, 1))
    Image.fromarray(ramp).save(tmp_path / "a.png")
    Image.fromarray(ramp.astype(np.uint16) * 257).save(tmp_path / "b.png")
    Image.fromarray(np.stack([ramp] * 3, 2)).quantize(64).save(tmp_path / "c.png")
    Image.fromarray(np.stack([ramp] * 3 + [255 - ramp // 2], 2), "RGBA").save(tmp_path / "d.png")
    photos = Photos([tmp_path])
    for index in range(4):
        assert np.abs(photos[index].astype(int) - ramp[..., None]).max() <= 2, photos.names[index]


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", [1, 6, 9, "6"])
def test_photos_are_upright(tmp_path, ending, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation  # 6: to be turned to the right; 9 and texts mean nothing
    pixels = np.random.default_rng(0).integers(0, 255, (40, 64, 3), np.uint8)
    try:
        Image.fromarray(pixels).save(tmp_path / f"a.{ending}", exif=exif, quality=100)
    except (ValueError, TypeError, struct.error):
        pytest.skip("Pillow cannot write such EXIF in this format")
    photos = Photos([tmp_path])
    assert photos.sizes == [(40, 64) if orientation == 6 else (64, 40)]
    assert photos[0].shape[:2] == photos.sizes[0][::-1]
    if ending in ("png", "tif") and orientation == 6:
        np.testing.assert_array_equal(photos[0], np.rot90(pixels, -1))


@pytest.mark.parametrize("exif", ["cut off", "odd"])
def test_photos_with_odd_exif_are_read(tmp_path, exif):
    entries = struct.pack("<HHHIIHHII", 2, 0x0112, 3, 1, 6, 0x011A, 10, 1, 38)  # turned; XResolution is signed
    data = b"Exif\0\0II*\0" + (struct.pack("<I", 8) + entries + struct.pack("<Iii", 0, -72, 1)) * (exif == "odd")
    Image.new("RGB", (64, 40)).save(tmp_path / "a.jpg", exif=data)
    photos = Photos([tmp_path])
    assert photos[0].shape[:2] == photos.sizes[0][::-1] == ((64, 40) if exif == "odd" else (40, 64))


def test_only_pictures_are_decoded(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")  # what it claims to be
    Image.new("RGB", (64, 64)).save(tmp_path / "b.png")
    photos = Photos([tmp_path])
    assert [Path(name).name for name in photos.unreadable] == ["a.png"]


def test_a_photo_that_breaks_off_is_passed_over(folder):
    whole = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(whole[: len(whole) // 2])
    photos = Photos([folder])
    assert len(photos) == 4  # the header is fine
    pairs = Pairs(photos, PairSettings(crop=64, holdout=4), 0, 20)
    assert all(torch.isfinite(pairs[n]["lr"]).all() for n in range(20))
    with pytest.raises(DataError, match=r"1\.png: damaged"):
        photos[1]


def test_useless_sources_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such"):
        Photos([tmp_path / "none"])
    with pytest.raises(DataError, match="no photo in"):
        Photos([tmp_path])
    (tmp_path / "x.tar").write_text("no tar")
    with pytest.raises(DataError, match="neither a folder nor an uncompressed tar"):
        Photos([tmp_path / "x.tar"])
    Image.new("RGB", (8, 8)).save(tmp_path / "tiny.png")
    with pytest.raises(DataError, match=r"no usable photo .* 1 smaller than 64 pixels"):
        Photos([tmp_path], smallest=64)


def test_pictures_that_no_decoder_reads_are_named(folder):
    (folder / "5.HEIC").write_bytes(b"x")
    (folder / "notes.md").write_text("x")
    photos = Photos([folder])
    assert (len(photos), photos.unreadable) == (4, [str(folder / "5.HEIC")])


def test_linked_folders_are_entered_once(folder, tmp_path):
    (tmp_path / "links").mkdir()
    for name in ("a", "b"):
        (tmp_path / "links" / name).symlink_to(folder)
    (folder / "up").symlink_to(tmp_path / "links")
    (tmp_path / "links" / "out").symlink_to(tmp_path)
    assert Photos([tmp_path / "links"]).names == [str(tmp_path / "links" / "a" / f"{i}.png") for i in range(4)]
    with pytest.raises(DataError, match="no photo in"):
        Photos([tmp_path / "links"], without=[folder])


def test_what_our_commands_wrote_beside_photos_is_no_photo(folder):
    for made, beside in (("run/samples", "run/stats.jsonl"), ("pairs/lr", "pairs/manifest.jsonl")):
        (folder / made).mkdir(parents=True)
        (folder / beside).write_text("")
        shutil.copy(folder / "0.png", folder / made / "0.png")
    assert len(Photos([folder])) == 4
    (folder / "pairs" / "manifest.jsonl").unlink()
    assert len(Photos([folder])) == 5


def test_a_white_photo_that_is_restored_as_it_was_has_a_finite_measure(tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (64, 64), "white").save(tmp_path / "photos" / "white.png")
    held = HeldOut(Pairs(Photos([tmp_path / "photos"]), PairSettings(crop=64), 0, 4), None, tiny_restorer(), tmp_path)
    held._restore = lambda restorer, lr, steps: torch.ones(len(lr), 3, 64, 64)
    assert held(8, {}) == {"images": 8, "psnr_1": pytest.approx(100), "psnr_4": pytest.approx(100)}
    held._restore = lambda restorer, lr, steps: torch.full((len(lr), 3, 64, 64), torch.nan)
    assert not np.isfinite(held(16, {})["psnr_1"])
    assert held.has(8)
    assert not held.has(16)


def test_shards_with_the_same_names_keep_all_photos(folder, tmp_path):
    for shard in "ab":
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            tar.add(folder / "0.png", "0.png")
    assert len(Photos([tmp_path / "a.tar", tmp_path / "b.tar"])) == 2


def test_memory_of_decoded_photos_is_bounded(folder):
    photos = Photos([folder], memory=0)
    for i in range(4):
        photos[i]
    assert len(photos._decoded) == 1


def test_workers_get_no_decoded_photos(folder):
    photos = Photos([folder], memory=1)
    room = photos._room
    photos[0]
    copy = pickle.loads(pickle.dumps(photos))
    assert not copy._decoded
    assert copy._room == room > photos._room
    np.testing.assert_array_equal(copy[0], photos[0])


def test_shares_of_degradations(photos, monkeypatch):
    made = []
    for name in ("fixed_case", "mild", "two_order"):
        monkeypatch.setattr(pairs_module, name, lambda hr, *_, name=name: made.append(name) or hr[:, ::4, ::4])
    pairs = Pairs(photos, PairSettings(crop=64, fixed_cases=0.5, mild=0.3), seed=0, length=400)
    for count in range(400):
        pairs[count]
    shares = {name: made.count(name) / 400 for name in set(made)}
    assert shares == pytest.approx({"fixed_case": 0.5, "mild": 0.3, "two_order": 0.2}, abs=0.07)
    with pytest.raises(DataError, match="at most 1"):
        PairSettings(fixed_cases=0.6, mild=0.5)


def test_a_case_that_stands_twice_comes_twice_as_often(photos, monkeypatch):
    made = []
    monkeypatch.setattr(pairs_module, "fixed_case", lambda hr, case, _: made.append(case) or hr[:, ::4, ::4])
    pairs = Pairs(photos, PairSettings(crop=64, fixed_cases=1, cases=("blur", "blur", "mix")), seed=0, length=200)
    for count in range(200):
        pairs[count]
    assert {name: made.count(name) / 200 for name in set(made)} == pytest.approx({"blur": 2 / 3, "mix": 1 / 3}, abs=0.1)
    for cases in ((), ("blurred",)):
        with pytest.raises(DataError, match=r"pairs\.cases is .* bicubic, blur, noise, mix"):
            PairSettings(cases=cases)


def test_draws_are_a_pictures_own():
    together, apart = Draws(0, 4, range(4, 8)), [Draws(0, 4, [place]) for place in range(4, 8)]
    torch.testing.assert_close(together.normal(2, 3), torch.cat([draws.normal(2, 3) for draws in apart]))
    torch.testing.assert_close(together.integers(9), torch.cat([draws.integers(9) for draws in apart]))
    assert len({draws.shared_uniform() for draws in apart}) == 1
    assert not torch.equal(Draws(1, 4, [4]).normal(3), Draws(0, 4, [4]).normal(3))


@pytest.mark.parametrize(
    ("case", "settings"), [("two-order", DegradationSettings()), ("mild", MildSettings()), ("mix", None)]
)
def test_pair_folders_repeat_and_are_read_back(photos, tmp_path, case, settings):
    made = {"case": case, "settings": settings, "crop": 72, "count": 2, "seed": 3}
    assert write_pairs(photos, tmp_path / "a", **made) == 8
    write_pairs(photos, tmp_path / "b", **made)
    names = sorted(path.name for path in (tmp_path / "a" / "lr").iterdir())
    for name in names:
        for kind in ("hr", "lr"):
            assert (tmp_path / "a" / kind / name).read_bytes() == (tmp_path / "b" / kind / name).read_bytes()
    head, *rows = [json.loads(line) for line in (tmp_path / "a" / "manifest.jsonl").read_text().splitlines()]
    assert head["case"] == case
    assert sorted(row["name"] for row in rows) == names
    real = RealPairs(tmp_path / "a", smallest=64)
    hr, lr = real.crop(0, 64, np.random.default_rng(0))
    assert hr.shape == (3, 64, 64)
    assert lr.shape == (3, 16, 16)
    with pytest.raises(DataError, match="holds pairs already"):
        write_pairs(photos, tmp_path / "a", **made)


def test_long_names_are_cut(folder, tmp_path):
    folder = folder.rename(tmp_path / "named")
    for path in folder.glob("[1-3].png"):
        path.unlink()
    (folder / "0.png").rename(folder / f"{'é' * 125}.png")
    write_pairs(Photos([folder]), tmp_path / "out", case="blur", settings=None, crop=64, count=1, seed=0)
    (name,) = (path.name for path in (tmp_path / "out" / "lr").iterdir())
    assert 253 <= len(name.encode()) <= 255


def test_pairs_that_were_broken_off_leave_no_half(photos, tmp_path, monkeypatch):
    made = {"case": "bicubic", "settings": None, "crop": 72, "count": 2, "seed": 3}
    save = Image.Image.save

    def killed(image, path, *args, **more):
        if path.name.startswith("000001_1") and ".lr" in path.parent.name:
            raise KeyboardInterrupt
        save(image, path, *args, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Image.Image, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            write_pairs(photos, tmp_path, **made)
    assert not (tmp_path / "hr").exists()
    assert write_pairs(photos, tmp_path, **(made | {"count": 1})) == 4
    assert [len(list((tmp_path / kind).iterdir())) for kind in ("hr", "lr")] == [4, 4]
    (tmp_path / "manifest.jsonl").unlink()
    with pytest.raises(DataError, match="holds pairs already"):
        write_pairs(photos, tmp_path, **made)


def test_real_pairs_in_subfolders_keep_their_partners(tmp_path):
    for value, clip in ((10, "000"), (200, "001")):
        for kind, side in (("hr", 64), ("lr", 16)):
            (tmp_path / kind / clip).mkdir(parents=True)
            Image.new("RGB", (side, side), (value,) * 3).save(tmp_path / kind / clip / "00000000.png")
    real = RealPairs(tmp_path)
    assert len(real) == 2
    for index in range(2):
        hr, lr = real.crop(index, 32, np.random.default_rng(0))
        assert hr[0, 0, 0] == lr[0, 0, 0]
    shutil.copy(tmp_path / "lr" / "000" / "00000000.png", tmp_path / "lr" / "000" / "00000000.webp")
    with pytest.raises(DataError, match="two pictures are called 000/00000000"):
        RealPairs(tmp_path)


def test_real_pairs_are_of_the_same_place(tmp_path):
    for kind, step in (("hr", 1), ("lr", 4)):
        (tmp_path / kind).mkdir()
        ramp = np.arange(0, 128, step, dtype=np.uint8)
        across, down = np.meshgrid(ramp, ramp)
        Image.fromarray(np.stack([across, down, across], 2)).save(tmp_path / kind / "ramp.png")
    real = RealPairs(tmp_path)
    for seed in range(8):
        hr, lr = real.crop(0, 32, np.random.default_rng(seed))
        assert (hr[:, ::4, ::4] - lr).abs().max() <= 4 / 255


def test_real_pairs_that_do_not_fit_are_refused(tmp_path):
    for kind, side in (("hr", 64), ("lr", 20)):
        (tmp_path / kind).mkdir()
        Image.new("RGB", (side, side)).save(tmp_path / kind / "a.png")
    with pytest.raises(DataError, match="64×64 and 20×20"):
        RealPairs(tmp_path)
    Image.new("RGB", (64, 64)).save(tmp_path / "hr" / "b.png")
    with pytest.raises(DataError, match="b is in hr but not"):
        RealPairs(tmp_path)


def test_real_pairs_with_an_unreadable_side_are_left_out(tmp_path):
    for kind, side in (("hr", 64), ("lr", 16)):
        (tmp_path / kind).mkdir()
        for level in range(4):
            Image.new("RGB", (side, side), (40 * level,) * 3).save(tmp_path / kind / f"{level}.png")
    (tmp_path / "lr" / "1.png").write_bytes(b"x")
    (tmp_path / "hr" / "2.png").write_bytes(b"x")
    real = RealPairs(tmp_path, 32)
    assert len(real) == 2
    levels = {
        round(real.crop(i, 32, np.random.default_rng(0))[side].mean().item() * 255 / 40)
        for i in (0, 1)
        for side in (0, 1)
    }
    assert levels == {0, 3}
    for level in (0, 3):
        (tmp_path / "lr" / f"{level}.png").write_bytes(b"x")
    Image.new("RGB", (16, 16)).save(tmp_path / "lr" / "unused.png")
    with pytest.raises(DataError, match="no pair of which both"):
        RealPairs(tmp_path, 32)


def test_real_pairs_alone_are_trained_on_and_held_out(tmp_path):
    for kind, side in (("hr", 64), ("lr", 16)):
        (tmp_path / kind).mkdir()
        for level in range(6):
            Image.new("RGB", (side, side), (40 * level,) * 3).save(tmp_path / kind / f"{level}.png")
    real = RealPairs(tmp_path, 32)
    settings = PairSettings(crop=32, holdout=3)
    trained, held = (Pairs(None, settings, 0, 40, held_out=held_out, real=real) for held_out in (False, True))
    levels = [{round(pairs[i]["hr"].mean().item() * 255 / 40) for i in range(40)} for pairs in (trained, held)]
    assert levels == [{1, 2, 4, 5}, {0, 3}]
    assert trained.shortest_side == 64
    (tmp_path / "lr" / "1.png").write_bytes((tmp_path / "lr" / "1.png").read_bytes()[:-30])
    real = RealPairs(tmp_path, 32)
    items = [Pairs(None, settings, 0, 40, real=real)[i] for i in range(40)]
    damaged = {name for item in items for name in item["damaged"].splitlines()}
    assert damaged == {str(tmp_path / "lr" / "1.png")}  # HR is sound
    for level in (0, 3):  # all that are held out
        path = tmp_path / "hr" / f"{level}.png"
        path.write_bytes(path.read_bytes()[:-30])
    item = Pairs(None, settings, 0, 40, held_out=True, real=RealPairs(tmp_path, 32))[0]
    assert {Path(name).name for name in item["damaged"].splitlines()} >= {"0.png", "3.png"}
    with pytest.raises(DataError, match="neither photos nor real pairs"):
        Pairs(None, settings, 0, 40)


def test_where_all_chosen_photos_are_damaged_others_must_be_large_enough(tmp_path):
    for name, side in (("a", 300), ("b", 140), ("c", 200)):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)).save(
            tmp_path / f"{name}.png"
        )
    damaged = tmp_path / "a.png"
    damaged.write_bytes(damaged.read_bytes()[:2000])
    held = Pairs(Photos([tmp_path], 128), PairSettings(crop=192, holdout=36), 0, 4, held_out=True)
    assert held.chosen == [0]
    assert held[0]["hr"].shape == (3, 192, 192)
    held.settings = replace(held.settings, crop=256)
    with pytest.raises(DataError, match=r"a\.png: damaged"):
        held[0]


def test_shares_may_be_rounded():
    settings = DegradationSettings()
    settings = replace(settings, first=replace(settings.first, resize_probabilities=(0.3333333, 0.3333333, 0.3333333)))
    two_order(torch.zeros(3, 64, 64), settings, np.random.default_rng(0))
