"""The Markdown page of a fault campaign."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from fault_records import Findings, Record
from faults import FAULTS, NODE_AWAY_S

_PAGE = """\
# Faults that a search outlasts

**{num_good} of {num_runs}** searches on a cluster, each struck by one fault at a random moment,
ended as demanded: with exactly {trials} trials finished, none running, none evaluated again after
its end, none lost or changed that had been seen finished before the fault, and placements,
accuracies and front equal to those of a search that nothing struck.

This page is printed by `{command}`;
commit {commit}, Python {python}, torch {torch}, {machine}.

The campaign and its judge have a suite of their own: `python -m pytest benchmarks/faults/tests`.

The cluster is of two Ray nodes on one machine, one CPU each; PostgreSQL is reached through a line
that can be cut. Proposals are random ones, two trials at a time, `--deterministic`. The evaluator
sleeps where others train; its checkpoints and weights are real. Of each kind of fault every fifth
strikes before the first trial. The same command is run again where the driver was killed or had
ended for want of room, and finds what it has left; killed nodes are started again after
{node_away_s:g} s, without a word to the search.

## By kind of fault

{kinds}

{table}

*Lost* and *pre-empted* are attempts that ended with their worker, or whose slot was taken away,
and were followed by another. *Retries* are evaluations that workers began for those; one *from a
checkpoint* goes on after the last epoch that was kept, and saves those before it.

## Run by run

Times are of a machine that others used as well: seconds from the first command's start to the
fault, and to the last command's end. *Finished* are the trials that had ended before the fault.

{runs}
"""


def page(findings: Findings) -> str:
    """The whole page."""
    made, records = findings.provenance, findings.records
    machine, versions, seed = made["machine"], made["versions"], findings.asked["seed"]
    return _PAGE.format(
        num_runs=len(records),
        num_good=sum(not record.violations for record in records),
        trials=findings.asked["trials"],
        command=f"python benchmarks/faults/fault_campaign.py --runs {len(records)} --seed {seed}",
        commit=made["commit"],
        machine=f"{machine['cores']} cores of {machine['processor']}",
        python=versions["python"],
        torch=versions["torch"],
        node_away_s=NODE_AWAY_S,
        kinds="\n".join(f"- *{kind}*: {fault.summary()}" for kind, fault in FAULTS.items()),
        table=kinds_table(records),
        runs=runs_table(records),
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def kinds_table(records: Sequence[Record]) -> str:
    """Table of the campaign by kind of fault."""
    rows = []
    for kind in [*FAULTS, "all"]:
        of_kind = [record for record in records if kind in (record.kind, "all")]
        if not of_kind:
            continue
        attempts = sum((Counter(record.attempts) for record in of_kind), Counter())
        works = [record.work for record in of_kind]
        rows.append(
            [
                kind,
                len(of_kind),
                sum(not record.violations for record in of_kind),
                sum(len(record.exit_codes) for record in of_kind),
                attempts["COMPLETE"],
                attempts["LOST"],
                attempts["PREEMPTED"],
                sum(work.retries for work in works),
                sum(work.from_checkpoint for work in works),
                sum(work.epochs_saved for work in works),
                sum(work.epochs_again for work in works),
                f"{max(record.wall_time_s for record in of_kind):.0f}",
            ]
        )
    columns = "fault,runs,as demanded,commands,attempts complete,lost,pre-empted,retries,"
    columns += "from a checkpoint,epochs saved,epochs run again,longest s"
    return table(columns.split(","), rows)


def runs_table(records: Sequence[Record]) -> str:
    """Table of the campaign by run."""
    columns = "run,fault,what was done,at s,begun,finished,exit codes,lost,pre-empted,s,found"
    return table(
        columns.split(","),
        [
            [
                record.run,
                record.kind,
                record.done,
                f"{record.moment_s:.1f}",
                "yes" if record.begun else "no",
                record.finished_before,
                ", ".join(str(code) for code in record.exit_codes),
                record.attempts.get("LOST", 0),
                record.attempts.get("PREEMPTED", 0),
                f"{record.wall_time_s:.0f}",
                "; ".join(record.violations) or "as demanded",
            ]
            for record in records
        ],
    )
