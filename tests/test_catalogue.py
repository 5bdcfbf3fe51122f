"""addsr download, with a stand-in for the hub: mirrors, verification, resumption left to huggingface_hub."""

import hashlib
from dataclasses import replace
from types import SimpleNamespace

import pytest

from addsr.checkpoints.catalogue import VARIABLE, Entry, cached_folders, read_catalogue
from addsr.checkpoints.download import fetch
from addsr.checkpoints.hub_cache import cached_snapshot
from addsr.errors import ModelError

CONTENT = b"weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Hub:
    """What `fetch` needs of huggingface_hub."""

    def __init__(self, folder, stated=DIGEST, there=("second/one",), git=""):
        self.folder, self.stated, self.there, self.git, self.asked = folder, stated, there, git, []

    def HfApi(self):  # noqa: N802
        return self

    def model_info(self, repository, files_metadata):
        assert files_metadata
        if repository not in self.there:
            raise OSError("404, not found\nmore")
        lfs = SimpleNamespace(sha256=self.stated)
        names = {"unet/config.json": None, "unet/weights.safetensors": lfs, "README.md": None}
        git = hashlib.sha1(b"blob 7\0" + CONTENT).hexdigest()
        return SimpleNamespace(
            siblings=[SimpleNamespace(rfilename=n, lfs=v, blob_id=self.git or git) for n, v in names.items()]
        )

    def snapshot_download(self, repository, *, allow_patterns, local_dir):
        self.asked.append((repository, sorted(allow_patterns), local_dir))
        folder = local_dir or self.folder / "cache"
        for name in allow_patterns:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(CONTENT)
        return str(folder)


ENTRY = Entry(repositories=["first/one", "second/one"], files=["unet/*"])


def test_the_first_mirror_that_answers_is_taken(tmp_path):
    hub = Hub(tmp_path)
    assert fetch("x", {"x": ENTRY}, None, hub) == tmp_path / "cache"
    assert fetch("x", {"x": ENTRY}, tmp_path / "to", hub) == tmp_path / "to" / "x"
    wanted = ["unet/config.json", "unet/weights.safetensors"]
    assert hub.asked[0] == ("second/one", wanted, None)


def test_parts_of_one_model_share_a_folder(tmp_path):
    entries = {"x": ENTRY, "x-unet": replace(ENTRY, folder="x")}
    places = [fetch(name, entries, tmp_path / "to", Hub(tmp_path)) for name in entries]
    assert places == [tmp_path / "to" / "x"] * 2
    ours = read_catalogue()
    assert ours["sd2.1-base-unet"].folder in ours


@pytest.mark.parametrize("pinned", [False, True])
def test_a_wrong_hash_removes_the_file(tmp_path, pinned):
    entry = ENTRY
    hub = Hub(tmp_path, stated=None if pinned else "0" * 64)
    if pinned:
        entry = Entry(repositories=["second/one"], files=["unet/*"], sha256={"unet/weights.safetensors": "0" * 64})
    with pytest.raises(ModelError, match="instead of 0000"):
        fetch("x", {"x": entry}, None, hub)
    assert not (tmp_path / "cache" / "unet" / "weights.safetensors").exists()


def test_small_files_are_checked_by_their_git_hash(tmp_path):
    with pytest.raises(ModelError, match="its git hash is"):
        fetch("x", {"x": ENTRY}, None, Hub(tmp_path, git="0" * 40))


def test_what_a_mirror_lacks_is_no_success(tmp_path):
    with pytest.raises(ModelError, match=r"second/one: has no vae/config\.json"):
        fetch("x", {"x": Entry(repositories=["second/one"], files=["unet/*", "vae/config.json"])}, None, Hub(tmp_path))
    pinned = Entry(repositories=["second/one"], files=["unet/*"], sha256={"unet/other.bin": "0" * 64})
    with pytest.raises(ModelError, match=r"second/one: has no unet/other\.bin"):
        fetch("x", {"x": pinned}, None, Hub(tmp_path))


def test_failures_are_named(tmp_path):
    with pytest.raises(ModelError, match="nothing is called 'y'"):
        fetch("y", {"x": ENTRY}, None, Hub(tmp_path))
    with pytest.raises(ModelError, match=r"first/one: 404, not found; second/one: 404, not found\)$"):
        fetch("x", {"x": ENTRY}, None, Hub(tmp_path, there=()))
    with pytest.raises(ModelError, match="has none of vae"):
        fetch("x", {"x": Entry(repositories=["second/one"], files=["vae/*"])}, None, Hub(tmp_path))
    with pytest.raises(ModelError, match="Google Drive"):
        fetch("addsr", read_catalogue(), None, Hub(tmp_path))


def test_the_catalogue_can_be_replaced(tmp_path, monkeypatch):
    assert {"sd2-base", "sd2.1-base", "ram", "seesr"} <= set(read_catalogue())
    path = tmp_path / "mine.toml"
    path.write_text('[own]\nabout = "mine"\nrepositories = ["a/b"]\n')
    assert read_catalogue(path)["own"].repositories == ["a/b"]
    monkeypatch.setenv(VARIABLE, str(path))
    assert list(read_catalogue()) == ["own"]
    path.write_text("[own]\nabuot = 1\n")
    with pytest.raises(ModelError, match="abuot"):
        read_catalogue(path)


def test_the_cache_is_searched_without_the_network(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert cached_folders(["x"], {"x": ENTRY}) == []
    snapshot = tmp_path / "models--second--one" / "snapshots" / "abc"
    (snapshot / "unet").mkdir(parents=True)  # a part of the repository is enough
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    assert cached_folders(["x"], {"x": ENTRY}) == [snapshot]
    assert cached_snapshot("second/one") == snapshot
    assert cached_snapshot("../one") is cached_snapshot("one") is None


def test_a_mirror_with_another_hash_is_passed_over_before_anything_is_fetched(tmp_path):
    pinned = {"unet/weights.safetensors": "0" * 64}
    entry = Entry(repositories=["second/one", "second/two"], files=["unet/*"], sha256=pinned)
    hub = Hub(tmp_path, there=("second/one", "second/two"))
    with pytest.raises(ModelError, match=r"second/one: its unet/weights\.safetensors has SHA-256.*second/two: its"):
        fetch("sd", {"sd": entry}, tmp_path / "out", hub)
    assert not hub.asked
