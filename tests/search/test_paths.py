"""Where a search keeps its weights."""

from pathlib import Path

import pytest

from sharedattn.errors import InputError
from sharedattn.results.database.engine import parse_url, sqlite_file
from sharedattn.search.paths import storage_url, weights_store

SERVER = "postgresql://host/studies"


def test_weights_lie_beside_the_database_or_in_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path("out")
    assert sqlite_file(parse_url(storage_url(None, out))) == out / "sharedattn.db"
    assert storage_url(SERVER, out) == SERVER
    for weights_dir, storage, place in (
        (None, storage_url(None, out), f"{tmp_path}/out/weights"),
        (None, f"sqlite:///{tmp_path}/deep/study.db", f"{tmp_path}/deep/weights"),
        (None, SERVER, f"{tmp_path}/out/weights"),
        ("shared", SERVER, f"{tmp_path}/shared"),
        ("/data/w", SERVER, "/data/w"),
        ("file:///data/w", SERVER, "file:///data/w"),
        ("s3://bucket/w", storage_url(None, out), "s3://bucket/w"),
    ):
        assert weights_store(weights_dir, storage, out).blobs.url == place
    assert list(tmp_path.iterdir()) == []


def test_a_url_that_means_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="fsspec does not know the protocol"):
        weights_store("s4://bucket", SERVER, Path("out"))
    with pytest.raises(InputError, match="is neither a folder nor a URL"):
        weights_store("file://data", SERVER, Path("out"))
