from pathlib import Path

import pytest

from addsr.runtime.complete_folder import complete_folder


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_it_appears_when_it_is_complete(tmp_path):
    with complete_folder(tmp_path / "deep" / "model") as part:
        (part / "weights").write_text("new")
        assert not (tmp_path / "deep" / "model").exists()
    assert names(tmp_path) == ["deep", "deep/model", "deep/model/weights"]


def interrupted(target):
    with complete_folder(target) as part:
        (part / "weights").write_text("half")
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["model", "deep/deeper/model"])
def test_nothing_is_left_of_an_interruption(tmp_path, name):
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / name)
    assert not names(tmp_path)


def test_an_interruption_takes_no_folder_that_was_there(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "mine" / "deep" / "model")
    assert names(tmp_path) == ["mine"]


@pytest.mark.parametrize("replace", [False, True])
def test_what_is_there_goes_only_where_it_may(tmp_path, replace):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").touch()
    try:
        with complete_folder(tmp_path / "model", replace=replace) as part:
            (part / "new").touch()
    except OSError:
        assert not replace
    assert names(tmp_path) == ["model", "model/new" if replace else "model/old"]


def test_the_old_one_comes_back_where_the_new_one_cannot_have_its_name(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").touch()
    rename = Path.rename

    def in_use(self, target):
        if self.name == ".model.part":
            raise PermissionError(13, "in use")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", in_use)
    with pytest.raises(PermissionError), complete_folder(tmp_path / "model", replace=True) as part:
        (part / "new").touch()
    assert names(tmp_path) == ["model", "model/old"]


def test_what_a_killed_run_left_is_not_taken_along(tmp_path):
    (tmp_path / ".model.part").mkdir()
    (tmp_path / ".model.part" / "old").touch()
    with complete_folder(tmp_path / "model"):
        pass
    assert names(tmp_path) == ["model"]


def test_what_a_run_killed_between_the_names_had_set_aside_comes_back(tmp_path):
    (tmp_path / ".model.old").mkdir()
    (tmp_path / ".model.old" / "weights").touch()
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "model")
    assert names(tmp_path) == ["model", "model/weights"]


def test_where_a_link_leads_to_stays(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "weights").touch()
    (tmp_path / "model").symlink_to(tmp_path / "elsewhere")
    for _ in range(2):
        with complete_folder(tmp_path / "model", replace=True) as part:
            (part / "new").touch()
    assert names(tmp_path) == ["elsewhere", "elsewhere/weights", "model", "model/new"]
