from rich.console import Console
from rich.table import Table

from sharedattn.objectives import OBJECTIVES
from sharedattn.results.front.confirmation import Candidate, Front
from sharedattn.results.records import TrialRow
from sharedattn.search.cli.tables import checks_table, front_table


def shown(table: Table) -> str:
    console = Console(width=200, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_brackets_in_checks_are_text() -> None:
    checks = [
        {"name": "[/x]", "expected": "[red]a[/red]", "found": "[/]", "ok": False},
        {"name": "images", "expected": 4000, "found": 4000, "ok": True},
    ]
    assert [line.split() for line in shown(checks_table(checks)).splitlines()] == [
        ["check", "expected", "found"],
        ["NO", "[/x]", "[red]a[/red]", "[/]"],
        ["ok", "images", "4000", "equal"],
    ]


def run(placement: str, top1: float, replicate: int = 0) -> TrialRow:
    empty = dict.fromkeys(TrialRow._fields)
    shown_fields = {
        "number": 7,
        "replicate": replicate,
        "placement": placement,
        "top1": top1,
        "costs": {"macs": 1009, "params": 101},
    }
    return TrialRow(**(empty | shown_fields))


def test_brackets_in_placements_are_text() -> None:
    one = Candidate(7, (run("E1/dia[1011]", 0.75),))
    two = Candidate(7, (run("[/V1]", 0.5), run("[/V1]", 0.75, replicate=1)))
    table = front_table(Front((one, two), is_confirmed=True, fidelity=None), (OBJECTIVES["top1"],))
    assert [line.split() for line in shown(table).splitlines()] == [
        ["id", "placement", "top1", "MACs", "params", "seeds"],
        ["7", "E1/dia[1011]", "0.750", "1.01", "k", "101", "1"],
        ["7", "[/V1]", "0.625", "±", "0.125", "1.01", "k", "101", "2"],
    ]
