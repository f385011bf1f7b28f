"""Paths are taken by the letter, URLs by their rules, and neither leads elsewhere in silence."""

import os
import sqlite3
from pathlib import Path

import pytest

from sharedattn.results.artifacts.blobs import BlobStore
from sharedattn.results.database.engine import parse_url, sqlite_file, sqlite_url
from sharedattn.search.paths import StorageConfig

ODD = [
    "run?1",
    "run%20x",
    "a#b",
    "run*x",
    "run[1]",
    "a::b",
    "a@b:c",
    "a b+c",
    "größe²",
    "a&b=c",
    "..x",
    "%",
    "a\\b",
]


@pytest.mark.parametrize("name", ODD)
def test_an_odd_folder_holds_database_weights_and_checkpoints(name: str, tmp_path: Path) -> None:
    for out in (Path(name), tmp_path / name):
        storage = StorageConfig(out=out)
        assert storage.database == out / "sharedattn.db"
        weights = storage.weights(None).blobs
        assert weights.folder == (out / "weights").absolute()
        assert weights.shown() == str((out / "weights").absolute())
    blobs = BlobStore(str(tmp_path / name))
    blobs.write("checkpoints/s/search-0.pt", b"state")
    assert (tmp_path / name / "checkpoints/s/search-0.pt").read_bytes() == b"state"
    assert blobs.names("checkpoints/s/") == ["checkpoints/s/search-0.pt"]


def test_two_odd_folders_share_nothing(lab) -> None:
    for number, name in enumerate(["run?1", "run?2", "run%20x", "a#b"]):
        assert lab.search("--out", name, "--study", f"study-{number}")[0] == 0
        assert lab.study("--out", name) == f"study-{number}"
        assert lab.run("report", "--out", name)[0] == 0
        assert Path(name, f"study-{number}", "report.html").is_file()
        assert {path.name for path in Path(name).iterdir()} >= {"sharedattn.db"}
    assert {path.name for path in Path().iterdir() if path.is_dir()} == {
        "run?1",
        "run?2",
        "run%20x",
        "a#b",
    }


def test_a_url_has_odd_characters_in_percent(lab) -> None:
    Path("odd?1").mkdir()
    url = sqlite_url(Path("odd?1/x y.db"))
    assert url == "sqlite:///odd%3F1/x y.db"
    assert lab.search("--storage", url)[0] == 0
    assert lab.study("--storage", "sqlite:///odd%3F1/x%20y.db").startswith("tiny-table-")
    with sqlite3.connect("odd?1/x y.db") as connection:
        assert connection.execute("SELECT count(*) FROM studies").fetchone() == (1,)


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("sqlite:///x.db?mode=ro", "takes no options"),
        ("sqlite:///x.db?", "takes no options"),
        ("sqlite:///run?1/x.db", "write %3F where it belongs to the file's name"),
        ("sqlite:///file:x.db?mode=ro&uri=true", "takes no options"),
        ("sqlite://x.db", "with three slashes"),
        ("sqlite://folder/x.db", "with three slashes"),
        ("sqlite://me:hunter2@host/x.db", "with three slashes"),
        ("sqlite:/x.db", "with three slashes"),
        ("sqlite:x.db", "with three slashes"),
        ("sqlite+aiosqlite:///x.db", "with three slashes"),
        ("sqlite+pysqlcipher://:hunter2@/x.db", "with three slashes"),
        ("sqlite:///", "is a file"),
        ("sqlite:///folder/", "is a file"),
        ("sqlite:///:memory:", "is a file"),
        ("sqlite:///a%00b.db", "is a file"),
        ("sqlite:///~nobody-of-this-name/x.db", "a user that is not known here"),
        (f"sqlite:///{'a' * 300}.db", "File name too long"),
        ("x.db", "is a URL such as sqlite:///study.db"),
    ],
)
def test_urls_that_are_no_file_are_refused(lab, url: str, rule: str) -> None:
    for said in (lab.refused_search("--storage", url), lab.refused("front", "--storage", url)):
        assert rule in said
        assert "hunter2" not in said


def test_home_is_home_in_a_url_as_in_the_shell(lab, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert lab.search("--storage", "sqlite:///~/x.db")[0] == 0
    assert (tmp_path / "home/x.db").is_file()
    assert not Path("~").exists()
    assert sqlite_file(parse_url("sqlite:///./~/x.db")) == Path("~/x.db")
    # The shell expands no ~ that stands behind `=`.
    assert lab.search("--out=~/runs", "--study", "there")[0] == 0
    assert lab.study(f"--out={os.path.expanduser('~')}/runs") == "there"
    assert not Path("~").exists()
