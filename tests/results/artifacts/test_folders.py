"""Folders that appear whole; exports test what kills leave."""

from pathlib import Path

import pytest

from sharedattn.errors import InputError
from sharedattn.results.artifacts.folders import check_replaceable, folder_in_place_of, write_text


def is_ours(folder: Path) -> bool:
    return (folder / "mark").exists()


def test_a_folder_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    place = tmp_path / "above" / "place"
    for content in ("one", "other"):
        with folder_in_place_of(place) as made:
            assert not list(made.iterdir())
            write_text(made / "mark", content)
            assert not (place / "mark").exists() or (place / "mark").read_text() == "one"
    assert (place / "mark").read_text() == "other"
    assert [path.name for path in place.parent.iterdir()] == ["place"]


def test_a_crash_leaves_the_older_one_and_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "place"
    with folder_in_place_of(place) as made:
        write_text(made / "mark", "one")
    with pytest.raises(KeyError, match="crash"), folder_in_place_of(place) as made:
        write_text(made / "mark", "half")
        raise KeyError("crash")
    with (
        pytest.raises(InputError, match="cannot be written.*No space"),
        folder_in_place_of(place),
    ):
        raise OSError(28, "No space left on device")
    assert (place / "mark").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_what_may_be_replaced(tmp_path: Path) -> None:
    for name in ("absent", "empty", "ours"):
        if name != "absent":
            (tmp_path / name).mkdir()
    (tmp_path / "ours" / "mark").touch()
    for name in ("absent", "empty", "ours"):
        check_replaceable(tmp_path / name, "a show", is_ours)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "work").touch()
    for name in ("theirs", "theirs/work"):
        with pytest.raises(InputError, match="neither a show nor an empty folder"):
            check_replaceable(tmp_path / name, "a show", is_ours)
    with pytest.raises(InputError, match="nothing can be created in"):
        check_replaceable(tmp_path / "theirs" / "work" / "below", "a show", is_ours)
