"""What a campaign of faults plans and finds, and the file that keeps it."""

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

EARLY_EVERY = 5  # faults of a kind, one strikes before the first trial


@dataclass(frozen=True)
class Planned:
    """A fault to come.

    Attributes:
        run: number of its run.
        kind: of the fault.
        early: whether it strikes before the first trial, and not between that and the end.
        moment: a fraction of the time that the undisturbed search took for that part.
        seed: of what the fault itself chooses.
    """

    run: int
    kind: str
    early: bool
    moment: float
    seed: int


@dataclass(frozen=True)
class Undisturbed:
    """A search that nothing struck.

    Attributes:
        result: what all others must come to.
        steps_s: when it made its steps, from the start of its command: its beginning, and each
            entry of its journal.
        wall_time_s: of its command.
    """

    result: Result
    steps_s: list[float]
    wall_time_s: float

    def moment(self, planned: Planned) -> tuple[int, float]:
        """When a planned fault strikes: after how many steps, and seconds after the last."""
        first_trial_s = self.steps_s[1]
        part = (0.0, first_trial_s) if planned.early else (first_trial_s, self.wall_time_s)
        at_s = part[0] + planned.moment * (part[1] - part[0])
        step = bisect_right(self.steps_s, at_s)
        return step, at_s - (self.steps_s[step - 1] if step else 0.0)


@dataclass(frozen=True)
class Record:
    """What became of one run.

    Attributes:
        run: its number.
        kind: of the fault.
        done: what exactly it did.
        begun: whether the search had begun by then.
        moment_s: when, from the start of the first command.
        finished_before: trials finished by then.
        exit_codes: of the commands, one after the other; None: it was ended because it hung.
        messages: last lines of those that did not end well.
        wall_time_s: from the first command's start to the last one's end.
        trials: by state.
        attempts: by outcome, as the database has them.
        work: what workers did.
        orphans: workers that outlived their node until the search had ended.
        files_left: checkpoints, and weights of what is not on the front.
        violations: of what is demanded.
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
    """The faults of a campaign: evenly of all kinds, in random order."""
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
    """A campaign as far as it is.

    Attributes:
        asked: what it was asked for, options by name.
        provenance: of the command that has found the last of it.
        undisturbed: the search without a fault; None: not yet run.
        records: of the runs with faults, in order.
    """

    asked: dict[str, Any]
    provenance: dict[str, Any]
    undisturbed: Undisturbed | None
    records: list[Record]

    @classmethod
    def load(cls, path: Path, asked: dict[str, Any], provenance: dict[str, Any]) -> Findings:
        """What an earlier command has found; nothing, where there is no file.

        Raises:
            ValueError: it was asked for another campaign.
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
