"""The share of a GPU's memory: set in workers of every executor, for shared GPUs alone."""

import pickle
from types import SimpleNamespace

import pytest
import torch
from fakes import Fake

from sharedattn.search.executors.gpu_memory import limit_gpu_memory
from sharedattn.search.executors.local import LocalExecutor, _work


@pytest.fixture
def shares(monkeypatch):
    """What torch is told, on a machine that is made to have a GPU."""
    told = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", told.append)
    return told


@pytest.mark.parametrize(
    ("gpus", "told"), [(0.0, []), (0.3, [0.3]), (0.5, [0.5]), (1.0, []), (2.0, [])]
)
def test_a_part_of_a_gpu_is_a_part_of_its_memory(shares, gpus, told):
    limit_gpu_memory(gpus)
    assert shares == told


def test_without_a_gpu_nothing_is_limited(shares, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    limit_gpu_memory(0.5)
    assert shares == []


class Closed:
    """A pipe whose other end is gone."""

    def recv(self):
        raise EOFError


def test_a_local_worker_limits_itself_to_its_share(shares, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    started = []
    monkeypatch.setattr(
        "sharedattn.search.executors.local._Slot.start",
        lambda life, *arguments: started.append((life, arguments)) or SimpleNamespace(),
    )
    executor = LocalExecutor(Fake(), num_slots=4, threads=1, gpus=0.5)
    for slot in range(4):
        executor._start(slot)
    assert [(gpus, visible) for _, (*_, gpus, visible) in started] == [
        (0.5, "3"),
        (0.5, "3"),
        (0.5, "5"),
        (0.5, "5"),
    ]
    _work(Closed(), pickle.dumps(Fake()), 1, 0.5, "5")
    assert shares == [0.5]
    _work(Closed(), pickle.dumps(Fake()), 1, 0.0, None)
    assert shares == [0.5]


def test_a_worker_of_ray_limits_itself_to_its_share(shares):
    pytest.importorskip("ray")
    from sharedattn.search.executors.ray.executor import _Evaluation

    worker = SimpleNamespace(_begin=lambda config: None)
    _Evaluation.setup(worker, {}, gpus=0.25)
    assert shares == [0.25]
