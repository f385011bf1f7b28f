import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sharedattn.errors import InputError
from sharedattn.results.artifacts.blobs import BlobStore
from sharedattn.results.artifacts.weights import WeightsStore, read_weights, write_weights

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([7], dtype=torch.int64)}
OTHER = {"a": STATE["a"] + 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "weights"


@pytest.fixture
def weights(folder: Path) -> WeightsStore:
    return WeightsStore(BlobStore(str(folder)))


def test_weights_are_read_back_bit_for_bit(folder: Path, weights: WeightsStore) -> None:
    assert not weights.has("key")
    # A transposed view is not contiguous: it is written as what it shows.
    sha256 = weights.save("key", {**STATE, "t": STATE["a"].T})
    assert weights.has("key") and weights.has("key", sha256) and not weights.has("ke")
    (file,) = folder.iterdir()
    assert file.name == f"key.{sha256[:16]}.safetensors"
    assert weights.shown("key", sha256) == str(file)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == sha256
    for loaded in (weights.load("key", sha256), read_weights(file, sha256)):
        assert set(loaded) == {"a", "b", "t"}
        assert torch.equal(loaded["a"], STATE["a"]) and torch.equal(loaded["b"], STATE["b"])
        assert torch.equal(loaded["t"], STATE["a"].T)


def test_a_late_attempt_does_not_replace_the_recorded_weights(weights: WeightsStore) -> None:
    recorded = weights.save("key", STATE)
    late = weights.save("key", OTHER)
    another = weights.save("other", STATE)
    assert recorded != late and recorded == another
    assert torch.equal(weights.load("key", recorded)["a"], STATE["a"])
    weights.delete("key", but=recorded)
    assert weights.has("key", recorded) and not weights.has("key", late)
    weights.save("key", OTHER)
    assert weights.keys() == {"key", "other"}
    weights.delete("key")
    weights.delete("key")
    assert weights.keys() == {"other"}
    with pytest.raises(InputError, match="cannot be read: No such file"):
        weights.load("key", recorded)


def test_contents_that_were_changed_are_refused(folder: Path, weights: WeightsStore) -> None:
    sha256 = weights.save("key", STATE)
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="was changed: its sha256"):
        weights.load("key", sha256)


def test_a_file_is_written_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    sha256 = write_weights(path, STATE)
    assert torch.equal(read_weights(path, sha256)["b"], STATE["b"])
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_weights(tmp_path / "absent", sha256)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    torch.save(STATE, path)  # a pickle
    with pytest.raises(InputError, match="is not a safetensors file"):
        read_weights(path, hashlib.sha256(path.read_bytes()).hexdigest())


def test_what_dead_processes_were_writing_is_swept(
    folder: Path, weights: WeightsStore, orphan_name: Callable[..., str]
) -> None:
    weights.sweep()  # there is no folder yet
    sha256 = weights.save("key", STATE)
    name = f"key.{sha256[:16]}.safetensors"
    (folder / orphan_name(name)).touch()
    assert weights.keys() == {"key"}
    weights.sweep()
    assert os.listdir(folder) == [name]
