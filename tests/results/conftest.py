"""Records for the tests of this room, every field settable."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from made_up_parts import Pooling, Shrink

from sharedattn.mechanisms.registry import registry
from sharedattn.placement import NetworkSpec
from sharedattn.plugins import Plugin
from sharedattn.results.artifacts.atomic import temporary_name
from sharedattn.results.database.store import Store
from sharedattn.results.records import (
    EvaluationIdentity,
    EvaluationRecord,
    Fidelity,
    LatencyRecord,
    LatencySource,
    SpecRecord,
    StudyRecord,
    TrialRole,
    TrialRow,
    TrialState,
)
from sharedattn.testing import registered

FIDELITY = Fidelity(epochs=7, image_size=16)


def study_record(**changes: Any) -> StudyRecord:
    values: dict[str, Any] = {
        "name": "digits",
        "fingerprint_document": {"space": "s", "budget": {"macs": 11}, "seed": 5},
        "space": {"name": "toy"},
        "data": {"name": "digit-pairs", "fingerprint": "d" * 64},
        "recipe": {"epochs": 7},
        "objectives": ("top1", "macs"),
        "searcher": "nsga2",
        "seed": 5,
        "reference_point": {"top1": 0.5, "macs": 1100.0},
        "provenance": {"command": "sharedattn search"},
        "num_trials": 24,
        "confirm_seeds": 3,
    }
    return StudyRecord(**{**values, **changes})


def spec_record(placement: str = "V2L1", *, params: int = 101, macs: int = 1009) -> SpecRecord:
    spec = NetworkSpec.parse(f"vit: {placement}")
    return SpecRecord.of(spec, params=params, macs=macs, attention_bytes=13)


def evaluation_record(spec: SpecRecord, *, seed: int = 5, **changes: Any) -> EvaluationRecord:
    values: dict[str, Any] = {
        "identity": EvaluationIdentity(
            spec_key=spec.key,
            recipe_key="r" * 64,
            data_fingerprint="d" * 64,
            fidelity=FIDELITY,
            seed=seed,
        ),
        "split": "validation",
        "top1": 0.875,
        "loss": 0.25,
        "num_images": 4000,
        "wall_time_s": 3.5,
        "device": "cpu",
        "threads": 1,
        "versions": {"torch": "2.14.1"},
        "learning_curve": [{"epoch": 1, "top1": 0.75}],
        "weights_sha256": "a" * 64,
    }
    return EvaluationRecord(**{**values, **changes})


def trial_row(
    number: int,
    placement: str = "V1",
    top1: float | None = 0.5,
    macs: int = 1,
    *,
    replicate: int = 0,
    **changes: Any,
) -> TrialRow:
    """A complete trial, of role confirm for a replicate above 0."""
    is_complete = changes.get("state", TrialState.COMPLETE) is TrialState.COMPLETE
    values: dict[str, Any] = {
        "id": number,
        "number": number,
        "role": TrialRole.CONFIRM if replicate else TrialRole.SEARCH,
        "replicate": replicate,
        "state": TrialState.COMPLETE,
        "reused": False,
        "error": None,
        "created_at": datetime(2026, 11, 21, 12),
        "finished_at": datetime(2026, 11, 21, 13),
        "spec_key": f"key of {placement}",
        "placement": placement,
        "evaluation_key": f"{placement}-{replicate}" if is_complete else None,
        "fidelity_key": FIDELITY.key if is_complete else None,
        "seed": 5 + replicate if is_complete else None,
        "top1": top1 if is_complete else None,
        "loss": 0.25 if is_complete else None,
        "wall_time_s": 3.5 if is_complete else None,
        "weights_sha256": None,
        "latency_source": None,
        "num_images": None,
        "costs": {"macs": macs, "params": 10 * macs},
    }
    if "latency_ms" in changes:
        values["costs"]["latency_ms"] = changes.pop("latency_ms")
    return TrialRow(**{**values, **changes})


def latency_record(**changes: Any) -> LatencyRecord:
    values: dict[str, Any] = {
        "latency_ms": 2.5,
        "latency_source": LatencySource.NETWORK,
        "repeats": 31,
        "device": "a processor, 2 threads",
        "batch_size": 3,
    }
    return LatencyRecord(**{**values, **changes})


@pytest.fixture
def make_latency() -> Callable[..., LatencyRecord]:
    return latency_record


@pytest.fixture
def make_study() -> Callable[..., StudyRecord]:
    return study_record


@pytest.fixture
def make_spec() -> Callable[..., SpecRecord]:
    return spec_record


@pytest.fixture
def make_evaluation() -> Callable[..., EvaluationRecord]:
    return evaluation_record


@pytest.fixture
def make_row() -> Callable[..., TrialRow]:
    return trial_row


@pytest.fixture(scope="session")
def orphan_name() -> Callable[..., str]:
    """As `temporary_name`, of a process that is dead."""
    gone = subprocess.Popen([sys.executable, "-S", "-c", ""])
    gone.wait()
    return lambda *args: temporary_name(*args).replace(f".{os.getpid()}.", f".{gone.pid}.")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store.open(url, create=True) as opened:
        yield opened


@contextmanager
def plugged_in() -> Iterator[None]:
    """`Pooling` and `Shrink` registered, as of a plug-in `poolers 1.2`, until the end."""
    plugin = Plugin("poolers", "1.2")
    with registered(Pooling(), Shrink()):
        registry().plugins.update({"branch P": plugin, "gate shrink": plugin})
        yield


@pytest.fixture(name="plugged_in")
def _plugged_in() -> Callable[[], AbstractContextManager[None]]:
    """Registers a made-up kind P and gate shrink of a plug-in `poolers 1.2`."""
    return plugged_in
