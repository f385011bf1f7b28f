"""Where a search keeps its weights."""

from pathlib import Path

import pytest

from sharedattn.errors import InputError
from sharedattn.search.paths import StorageConfig

SERVER = "postgresql://host/studies"


def test_weights_lie_beside_the_database_or_in_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path("out")
    assert StorageConfig(out=out).database == out / "sharedattn.db"
    assert StorageConfig(storage=SERVER, out=out).url == SERVER
    for weights_dir, storage, place in (
        (None, None, f"{tmp_path}/out/weights"),
        (None, f"sqlite:///{tmp_path}/deep/study.db", f"{tmp_path}/deep/weights"),
        (None, SERVER, f"{tmp_path}/out/weights"),
        ("shared", SERVER, f"{tmp_path}/shared"),
        ("/data/w", SERVER, "/data/w"),
        ("file:///data/w", SERVER, "file:///data/w"),
        ("s3://bucket/w", None, "s3://bucket/w"),
    ):
        assert StorageConfig(storage=storage, out=out).weights(weights_dir).blobs.url == place
    assert list(tmp_path.iterdir()) == []


def test_a_url_that_means_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="fsspec does not know the protocol"):
        StorageConfig(storage=SERVER).weights("s4://bucket")
    with pytest.raises(InputError, match="is neither a folder nor a URL"):
        StorageConfig(storage=SERVER).weights("file://data")
