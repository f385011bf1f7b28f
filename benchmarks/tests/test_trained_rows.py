"""Rows of a file: those that contradict each other, or are no accuracies, are refused."""

import json
from dataclasses import asdict

import pytest
from trained_rows import Job, Row, Rows

from sharedattn.errors import InputError

KEYS = ("r", "n", "d")
JOBS = [Job(placement=text, seed=seed, epochs=2) for seed in (0, 1) for text in ("V1", "V2", "N1")]


class FakeTrainings:
    """Needs the trainings of `JOBS`, all with the same keys."""

    def jobs(self):
        return JOBS

    def keys(self, job):
        return KEYS


def row_of(job, top1=0.5, keys=KEYS):
    recipe, network, data = keys
    return Row(
        **asdict(job),
        recipe=recipe,
        network=network,
        data=data,
        top1=top1,
        curve=[(1, 0.25), (2, top1)],
        cpu_s=1.0,
    )


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = Rows(path, FakeTrainings())
    for job in JOBS[:3]:
        rows.append(row_of(job))
    return path


def append(path, row):
    with path.open("a") as file:
        file.write(json.dumps(asdict(row)) + "\n")


def test_rows_are_read_as_written_and_what_is_missing_is_in_order(path):
    rows = Rows(path, FakeTrainings())
    assert len(rows) == 3 and rows.missing() == JOBS[3:]
    assert rows.get("V2", 0, 2) == row_of(JOBS[1])
    assert rows.get("V2", 1, 2) is None


def test_equal_rows_count_once_and_rows_of_others_not_at_all(path):
    append(path, row_of(JOBS[0]))
    append(path, row_of(JOBS[1], top1=0.75, keys=("other", "n", "d")))
    rows = Rows(path, FakeTrainings())
    assert len(rows) == 3 and rows.get("V2", 0, 2).top1 == 0.5


def test_rows_that_disagree_are_refused(path):
    append(path, row_of(JOBS[1], top1=0.75))
    message = "rows.jsonl has V2, seed 0, 2 epochs twice, with top1 0.5 and 0.75; leave one"
    with pytest.raises(InputError, match=message):
        Rows(path, FakeTrainings())


@pytest.mark.parametrize("top1", [1.5, -0.25, float("nan")])
def test_what_is_no_accuracy_is_refused(path, top1):
    append(path, row_of(JOBS[4], top1=top1))
    with pytest.raises(InputError, match=f"rows.jsonl has {top1} for V2, seed 1; leave that"):
        Rows(path, FakeTrainings())
