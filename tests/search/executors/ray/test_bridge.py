"""Two threads take turns: nothing is lost, nothing is delivered twice, nobody waits for ever."""

import contextlib
import signal
import threading
import time

import pytest
from fakes import Fake
from processes import LONGEST_S

from sharedattn.placement import NetworkSpec
from sharedattn.results.records import EpochMetrics
from sharedattn.search.executors import ClusterLostError, Lost, Preempted, Reported
from sharedattn.search.executors.ray.bridge import ClosedError, Handover

TASK = Fake().task(
    NetworkSpec.parse(
        "vit(depth=4,embed_dim=8,num_heads=2,patch_size=4,in_chans=1,num_classes=2)@16: V4"
    ),
    0,
)
REPORT = Reported(EpochMetrics(epoch=1, top1=0.5, loss=0.7))


@pytest.fixture
def handover():
    return Handover()


@pytest.fixture
def start(handover):
    """Starts a scheduler's thread; once all is closed it ends."""
    threads = []

    def run(function):
        with contextlib.suppress(ClosedError):
            function()

    def start(function):
        threads.append(threading.Thread(target=run, args=[function], daemon=True))
        threads[-1].start()

    yield start
    handover.close()
    for thread in threads:
        thread.join(LONGEST_S)
        assert not thread.is_alive()


def test_a_scheduler_stands_still_until_the_loop_waits_again(handover, start):
    log = []

    def scheduler():
        while (taken := handover.take()) is not None:
            ticket, task = taken
            assert task is TASK
            log.append(("takes", ticket))
            handover.deliver(ticket, Lost(f"end of {ticket}"))
        log.append(("takes", None))
        handover.end(None)

    handover.submit(0, TASK)
    start(scheduler)
    for ticket in range(50):
        assert handover.wait(LONGEST_S) == [(ticket, Lost(f"end of {ticket}"))]
        log.append(("records", ticket))
        time.sleep(0.0005)
        if ticket < 49:
            handover.submit(ticket + 1, TASK)
    assert handover.num_in_flight == 0
    assert handover.wait(None) == []
    expected = [(does, ticket) for ticket in range(50) for does in ("takes", "records")]
    assert log == expected


def test_a_report_is_answered_and_the_answer_reaches_its_task(handover, start):
    answers = []

    def scheduler():
        for goes_on in (True, False):
            answers.append((goes_on, handover.deliver(7, REPORT)))
        # Stopped: nothing more is heard of it.
        answers.append(handover.deliver(7, Lost("late")))
        handover.deliver(8, Lost("died"))

    handover.submit(7, TASK)
    handover.submit(8, TASK)
    start(scheduler)
    assert handover.wait(LONGEST_S) == [(7, REPORT)]
    handover.answer(7, True)
    assert handover.num_in_flight == 2
    assert handover.wait(LONGEST_S) == [(7, REPORT)]
    handover.answer(7, False)
    assert handover.num_in_flight == 1
    assert handover.wait(LONGEST_S) == [(8, Lost("died"))]
    assert answers == [(True, True), (False, False), False]
    assert handover.wait(0) == []


def test_a_report_is_not_left_unanswered(handover, start):
    handover.submit(7, TASK)

    start(lambda: handover.deliver(7, REPORT))
    handover.wait(LONGEST_S)
    with pytest.raises(RuntimeError, match="the report of ticket 7 has no answer"):
        handover.wait(LONGEST_S)


def test_an_event_that_comes_while_the_loop_is_away_waits_for_it(handover, start):
    handover.submit(0, TASK)
    handover.submit(1, TASK)
    assert handover.wait(0.01) == []

    def scheduler():
        handover.deliver(0, Preempted("node left"))
        handover.deliver(1, Preempted("node left"))

    start(scheduler)
    deadline = time.monotonic() + LONGEST_S
    while handover.num_in_flight == 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert handover.num_in_flight == 1
    assert handover.wait(0) == [(0, Preempted("node left"))]
    # Short looks do not starve the scheduler, which gets its turn with the first of them.
    events = []
    deadline = time.monotonic() + LONGEST_S
    while not events and time.monotonic() < deadline:
        events = handover.wait(0)
    assert events == [(1, Preempted("node left"))]
    assert handover.wait(0) == []


def test_an_event_is_of_a_task_in_flight_and_comes_once(handover, start):
    handover.submit(0, TASK)

    def scheduler():
        assert not handover.deliver(99, Lost("of an earlier run"))
        handover.deliver(0, Lost("first"))
        assert not handover.deliver(0, Lost("second"))
        handover.end(None)

    start(scheduler)
    assert handover.wait(LONGEST_S) == [(0, Lost("first"))]
    assert handover.wait(LONGEST_S) == []


@pytest.mark.parametrize("call", ["take", "check", "deliver", "standing"])
def test_closing_ends_the_scheduler_wherever_it_is(handover, start, call):
    handover.submit(0, TASK)
    closed, raised = threading.Event(), threading.Event()

    def scheduler():
        calls = {
            "take": handover.take,
            "check": handover.check,
            "deliver": lambda: handover.deliver(0, REPORT),
            "standing": lambda: handover.deliver(0, REPORT),
        }
        with pytest.raises(ClosedError, match="wants no more"):
            if call != "standing":
                assert closed.wait(LONGEST_S)
            calls[call]()
        raised.set()

    start(scheduler)
    if call == "standing":
        assert handover.wait(LONGEST_S) == [(0, REPORT)]
    handover.close()
    closed.set()
    assert raised.wait(LONGEST_S)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RuntimeError("Traceback ...\nConnectionError: no head\n"), "Ray says: ConnectionError"),
        (None, "and does not say why"),
    ],
)
def test_a_scheduler_that_ends_is_not_waited_for(handover, start, error, says):
    handover.submit(0, TASK)
    start(lambda: handover.end(error))
    with pytest.raises(ClusterLostError, match=f"the cluster went away, {says}.*same command"):
        handover.wait(LONGEST_S)
    with pytest.raises(ClusterLostError) as raised:
        handover.wait(LONGEST_S)
    assert raised.value.__cause__ is error


def test_what_was_delivered_before_the_end_is_heard_first(handover, start):
    handover.submit(0, TASK)
    handover.submit(1, TASK)

    def scheduler():
        handover.deliver(0, Lost("died"))
        handover.end(None)

    start(scheduler)
    assert handover.wait(LONGEST_S) == [(0, Lost("died"))]
    with pytest.raises(ClusterLostError):
        handover.wait(LONGEST_S)


@pytest.mark.usefixtures("sigint_is_heeded")
def test_ctrl_c_ends_a_wait_at_once(handover):
    handover.submit(0, TASK)
    timer = threading.Timer(0.1, lambda: signal.raise_signal(signal.SIGINT))
    timer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        handover.wait(None)
    assert time.monotonic() - began < 5
