"""Tasks in this process: one runs while it is waited for, to its next rung or its end."""

import os

import pytest
import torch
from fakes import Fake, Raising, Staged

from sharedattn.placement import NetworkSpec
from sharedattn.search.executors import Finished, Raised, Reported
from sharedattn.search.executors.in_process import InProcessExecutor

BACKBONE = "vit(depth=4,embed_dim=8,num_heads=2,patch_size=4,in_chans=1,num_classes=2)@16"


def task(evaluator, placement="V2"):
    return evaluator.task(NetworkSpec.parse(f"{BACKBONE}: {placement}"), 3)


def test_a_task_finishes_here():
    evaluator = Fake()
    with InProcessExecutor(evaluator) as executor:
        assert executor.wait() == []
        executor.submit(7, task(evaluator))
        assert executor.num_free == 0
        ((ticket, event),) = executor.wait()
        assert ticket == 7 and isinstance(event, Finished)
        assert event.threads == torch.get_num_threads()
        assert event.measurement.top1 == evaluator.measure(task(evaluator)).top1
        assert executor.num_free == 1


def test_rungs_are_answered():
    evaluator = Staged()
    with InProcessExecutor(evaluator, num_slots=2) as executor:
        executor.submit(0, task(evaluator))
        executor.submit(1, task(evaluator, "V1"))
        ((ticket, event),) = executor.wait()
        assert (ticket, event.metrics.epoch) == (0, 1) and isinstance(event, Reported)
        with pytest.raises(AssertionError, match="must be answered"):
            executor.wait()
        executor.go_on(0)
        assert executor.wait()[0][1].metrics.epoch == 2
        executor.stop(0)
        assert executor.num_free == 1
        assert executor.wait()[0][0] == 1


def test_what_is_raised_is_an_event():
    evaluator = Raising()
    with InProcessExecutor(evaluator) as executor:
        executor.submit(0, task(evaluator, "E1/s5"))
        ((_, event),) = executor.wait()
    assert isinstance(event, Raised) and "does not fit" in event.traceback
    assert executor.num_free == 1 and os.getpid()
