"""Checkpoints are whole or absent, hold plain states, and go with their trials."""

import io
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sharedattn.results.artifacts.blobs import BlobStore
from sharedattn.results.artifacts.checkpoints import CheckpointStore

STATE: dict[str, Any] = {
    "weights": OrderedDict(w=torch.arange(6.0).reshape(2, 3)),
    "optimizer": {"state": {0: {"step": torch.tensor(7.0)}}, "groups": [{"betas": (0.9, 0.99)}]},
    "random": (3, tuple(range(5)), None),
    "epoch": 7,
    "done": False,
    "identity": "é",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "weights"


@pytest.fixture
def checkpoints(folder: Path) -> CheckpointStore:
    return CheckpointStore(BlobStore(str(folder)))


def test_a_state_is_read_back(folder: Path, checkpoints: CheckpointStore) -> None:
    assert checkpoints.load("digits/search-7") is None
    checkpoints.save("digits/search-7", {"epoch": 6})
    checkpoints.save("digits/search-7", STATE)
    assert [str(path.relative_to(folder)) for path in folder.rglob("*.*")] == [
        "checkpoints/digits/search-7.pt"
    ]
    state = checkpoints.load("digits/search-7")
    assert state is not None and list(state) == list(STATE)
    assert torch.equal(state["weights"]["w"], STATE["weights"]["w"])
    assert state["optimizer"]["state"][0]["step"] == 7.0
    for key in ("random", "epoch", "done", "identity"):
        assert state[key] == STATE[key] and type(state[key]) is type(STATE[key])
    for _ in range(2):
        checkpoints.delete("digits/search-7")
    assert checkpoints.load("digits/search-7") is None


@pytest.mark.parametrize("where", [0, 30, 60, -1])
def test_a_damaged_checkpoint_is_as_good_as_none(
    folder: Path, checkpoints: CheckpointStore, where: int
) -> None:
    checkpoints.save("digits/search-7", STATE)
    path = folder / "checkpoints" / "digits" / "search-7.pt"
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    assert checkpoints.load("digits/search-7") is None
    assert not path.exists()
    checkpoints.save("digits/search-7", STATE)
    path.write_bytes(path.read_bytes()[:where])
    assert checkpoints.load("digits/search-7") is None
    assert not path.exists()


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("/nonexistent/harm",)


def test_nothing_from_a_file_is_executed(
    checkpoints: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("sharedattn.results.artifacts.checkpoints._check_plain", lambda *_: None)
        checkpoints.save("digits/search-7", {"x": Harm()})
    assert checkpoints.load("digits/search-7") is None
    # The file is one that would do harm.
    buffer = io.BytesIO()
    torch.save({"x": Harm()}, buffer)
    with pytest.raises(FileNotFoundError, match="harm"):
        torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"x": [1, np.float64(2.0)]}, r"state\['x'\]\[1\] is a float64"),
        ({"x": {np.int64(3): 1}}, r"a key of state\['x'\] is a int64"),
        ({"x": ({"y": Path()},)}, r"state\['x'\]\[0\]\['y'\] is a PosixPath"),
    ],
)
def test_what_no_retry_could_read_is_refused(
    checkpoints: CheckpointStore, folder: Path, value: dict[str, Any], where: str
) -> None:
    with pytest.raises(TypeError, match=f"only tensors, numbers and strings, but .*{where}"):
        checkpoints.save("digits/search-7", value)
    assert not folder.exists()


def test_a_name_cannot_lead_out(checkpoints: CheckpointStore) -> None:
    for name in ("../search-7", "digits/../../x", "/x", ""):
        with pytest.raises(ValueError, match="is not a valid file name; use letters, digits"):
            checkpoints.load(name)


def test_a_sweep_leaves_the_trials_in_flight(
    folder: Path, checkpoints: CheckpointStore, orphan_name: Callable[..., str]
) -> None:
    checkpoints.sweep(set(), "digits/")
    for name in ("digits/search-7", "digits/search-11", "digits/confirm-7", "digits2/search-7"):
        checkpoints.save(name, {"epoch": 1})
    (folder / "checkpoints" / "digits" / orphan_name("search-7.pt")).touch()
    checkpoints.sweep({"digits/search-7", "digits/search-13"}, "digits/")
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == [
        "checkpoints/digits/search-7.pt",
        "checkpoints/digits2/search-7.pt",
    ]
