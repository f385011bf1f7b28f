"""Records of a fault campaign's plan and findings, and their file."""

from __future__ import annotations

import json
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fault_verdict import Result, Work

from sharedattn.results.artifacts.atomic import atomic_write

EARLY_EVERY = 5  # every fifth fault of a kind hits before the first trial


@dataclass(frozen=True)
class Planned:
    """A planned fault.

    Attributes:
        run: number of its run.
        kind: kind of the fault.
        early: whether it hits before the first trial, instead of between that and the end.
        moment: fraction of the time that the search without faults took for that part.
        seed: seed of the fault's own choices.
    """

    run: int
    kind: str
    early: bool
    moment: float
    seed: int


@dataclass(frozen=True)
class Undisturbed:
    """A search without faults.

    Attributes:
        result: the result that all others must reach.
        steps_s: times of its steps from the start of its command: its beginning, and each entry of
            its journal.
        wall_time_s: wall time of its command.
    """

    result: Result
    steps_s: list[float]
    wall_time_s: float

    def moment(self, planned: Planned) -> tuple[int, float]:
        """When a planned fault hits: after how many steps, and seconds after the last of them."""
        first_trial_s = self.steps_s[1]
        part = (0.0, first_trial_s) if planned.early else (first_trial_s, self.wall_time_s)
        at_s = part[0] + planned.moment * (part[1] - part[0])
        step = bisect_right(self.steps_s, at_s)
        return step, at_s - (self.steps_s[step - 1] if step else 0.0)


@dataclass(frozen=True)
class Record:
    """Outcome of one run.

    Attributes:
        run: number of the run.
        kind: kind of the fault.
        done: what exactly the fault did.
        begun: whether the search had begun by then.
        moment_s: seconds from the start of the first command to the fault.
        finished_before: number of trials finished by then.
        exit_codes: exit codes of the commands in order; None for one killed because it hung.
        messages: last lines of those that failed.
        wall_time_s: from the first command's start to the last one's end.
        trials: number of trials by state.
        attempts: number of attempts by outcome, from the database.
        work: work of the workers.
        orphans: number of workers that outlived their node until the search had ended.
        files_left: number of checkpoints, and of weights not on the front.
        violations: violated requirements.
    """

    run: int
    kind: str
    done: str
    begun: bool
    moment_s: float
    finished_before: int
    exit_codes: list[int | None]
    messages: list[str]
    wall_time_s: float
    trials: dict[str, int]
    attempts: dict[str, int]
    work: Work
    orphans: int
    files_left: int
    violations: list[str]


def plan(kinds: Sequence[str], runs: int, seed: int) -> list[Planned]:
    """The faults of a campaign: equally many of all kinds, in random order."""
    rng = random.Random(seed)
    faults = [
        (kinds[i % len(kinds)], i // len(kinds) % EARLY_EVERY == EARLY_EVERY - 1)
        for i in range(runs)
    ]
    rng.shuffle(faults)
    return [
        Planned(run, kind, early, rng.random(), rng.randrange(2**32))
        for run, (kind, early) in enumerate(faults)
    ]


@dataclass
class Findings:
    """The findings of a campaign so far.

    Attributes:
        asked: its options by name.
        provenance: provenance of the last command.
        undisturbed: the search without a fault, or None before it has run.
        records: outcomes of the runs with faults, in order.
    """

    asked: dict[str, Any]
    provenance: dict[str, Any]
    undisturbed: Undisturbed | None
    records: list[Record]

    @classmethod
    def load(cls, path: Path, asked: dict[str, Any], provenance: dict[str, Any]) -> Findings:
        """Load the findings of an earlier command, or none if there is no file.

        Raises:
            ValueError: they belong to another campaign.
        """
        if not path.exists():
            return cls(asked, provenance, None, [])
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["asked"] != asked:
            raise ValueError(
                f"{path} holds another campaign, of {document['asked']}; name another --results"
            )
        undisturbed = document["undisturbed"]
        result = Result(**undisturbed.pop("result"))
        return cls(
            asked,
            document["provenance"],
            Undisturbed(result, **undisturbed),
            [Record(**{**found, "work": Work(**found["work"])}) for found in document["records"]],
        )

    def save(self, path: Path) -> None:
        atomic_write(path, json.dumps(asdict(self), indent=1).encode())
