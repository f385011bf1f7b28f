import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from results.weights import WeightsStore, read_weights, sha256_of
from sharedattn.errors import InputError

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([7], dtype=torch.int64)}


@pytest.fixture
def weights(tmp_path: Path) -> WeightsStore:
    return WeightsStore(tmp_path / "deep" / "weights")


def test_weights_are_read_back_bit_for_bit(weights: WeightsStore) -> None:
    assert not weights.has("key")
    # A transposed view is not contiguous: it is written as what it shows.
    sha256 = weights.save("key", {**STATE, "t": STATE["a"].T})
    assert weights.has("key")
    assert sha256 == sha256_of(weights.path("key"))
    loaded = weights.load("key", sha256)
    assert set(loaded) == {"a", "b", "t"}
    assert torch.equal(loaded["a"], STATE["a"]) and torch.equal(loaded["b"], STATE["b"])
    assert torch.equal(loaded["t"], STATE["a"].T)


def test_weights_that_were_saved_again_are_replaced_whole(weights: WeightsStore) -> None:
    first = weights.save("key", STATE)
    second = weights.save("key", {"a": STATE["a"] + 1})
    assert first != second
    assert os.listdir(weights.folder) == ["key.safetensors"]
    with pytest.raises(InputError, match="the weights are the recorded ones.*was changed"):
        weights.load("key", first)


def test_a_write_that_fails_leaves_the_older_file_and_nothing_else(
    weights: WeightsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = weights.save("key", STATE)

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        weights.save("key", {"a": STATE["a"] + 1})
    assert os.listdir(weights.folder) == ["key.safetensors"]
    assert sha256_of(weights.path("key")) == sha256


_SAVING_MORE_THAN_FITS = """
import resource, signal, sys
from pathlib import Path
import torch
from results.weights import WeightsStore

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    WeightsStore(Path(sys.argv[1])).save("key", {"x": torch.zeros(8192)})
except OSError as error:
    sys.exit(error.errno)
"""


def test_a_write_that_the_system_refuses_says_why_by_its_number(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _SAVING_MORE_THAN_FITS, tmp_path]
    assert subprocess.run(command, check=False).returncode == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


def test_what_dead_processes_were_writing_is_swept(weights: WeightsStore) -> None:
    weights.sweep()  # there is no folder yet
    sha256 = weights.save("key", STATE)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (weights.folder / f".key.safetensors.{gone.pid}").touch()
    (weights.folder / f".key.safetensors.{os.getpid()}").touch()
    (weights.folder / f".notes.{gone.pid}").touch()
    weights.sweep()
    assert sorted(os.listdir(weights.folder)) == sorted(
        [f".key.safetensors.{os.getpid()}", f".notes.{gone.pid}", "key.safetensors"]
    )
    assert sha256_of(weights.path("key")) == sha256


def test_deleted_weights_are_gone_and_may_be_deleted_again(weights: WeightsStore) -> None:
    sha256 = weights.save("key", STATE)
    weights.delete("key")
    weights.delete("key")
    assert not weights.has("key")
    with pytest.raises(InputError, match="the weights are on the disk.*No such file"):
        weights.load("key", sha256)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    torch.save(STATE, path)  # a pickle
    with pytest.raises(InputError, match="weights are a safetensors file"):
        read_weights(path, sha256_of(path))
