"""What each study comes to with one more trial: python make_continued.py > continued.json.

To be run in an empty folder. The tests ask the same functions.
"""

import contextlib
import io
import json
import shutil
import sqlite3
import zipfile
from pathlib import Path

from sharedattn.search.cli.main import main

HERE = Path(__file__).parent
BEFORE = HERE.parent / "reader_1"

STUDIES = {
    "kinds-digit-pairs-31de4d": (
        *("kinds.yaml", "--epochs", 1, "--confirm-seeds", 2),
        *("--max-macs", "16k", "--max-params", "4.5k"),
    ),
    "kinds-digit-pairs-27eba0": (
        *("kinds.yaml", "--evaluator", "supernet", "--supernet-recipe", "supernet.yaml"),
        *("--epochs", 1, "--confirm-seeds", 1, "--max-macs", "16k"),
    ),
    "tiny-digit-pairs-4402ab": (
        *("tiny.yaml", "--early-stopping", "mo-asha", "--rungs", "1,2", "--epochs", 3),
        *("--confirm-seeds", 1, "--seed", 1),
    ),
    "shapes-shapes-9ea4d8": (
        *("shapes.yaml", "--data", "shapes", "--recipe", "recipe.yaml", "--test-split", 0.2),
        *("--on-bad-image", "skip", "--scan", "full", "--crop-mode", "squash"),
        *("--crop-pct", 0.9, "--confirm-seeds", 2, "--searcher", "random"),
    ),
    "tiny-table-f80b21": (
        *("tiny.yaml", "--evaluator", "table", "--table", "table.json", "--searcher", "tpe"),
        *("--objectives", "top1,params", "--seed", 2, "--early-stopping", "mo-asha"),
        *("--confirm-seeds", 1),
    ),
}
NUM_TRIALS = {
    "kinds-digit-pairs-31de4d": 6,
    "kinds-digit-pairs-27eba0": 40,
    "tiny-digit-pairs-4402ab": 6,
    "shapes-shapes-9ea4d8": 4,
    "tiny-table-f80b21": 9,
}
LATENCIES = "tiny-digit-pairs-19fe6a"


def fill(folder: Path) -> None:
    """Make a folder as that of the commands that made the fixtures, with what they left there."""
    with zipfile.ZipFile(BEFORE / "shapes.zip") as archive:
        archive.extractall(folder)
    shutil.copytree(HERE / "weights", folder / "out" / "weights")
    shutil.copytree(HERE / "exports", folder / "exports")
    with sqlite3.connect(folder / "out" / "sharedattn.db") as database:
        database.executescript((HERE / "database.sql").read_text(encoding="utf-8"))
    database.close()
    for path in (
        *(BEFORE / name for name in ("shapes.yaml", "recipe.yaml", "tiny.yaml")),
        *(HERE / name for name in ("kinds.yaml", "supernet.yaml", "table.json")),
    ):
        shutil.copy(path, folder)


def search(study: str, more: int) -> tuple[str, ...]:
    """The command that goes on with a study for `more` trials, in the filled folder."""
    arguments = (
        *("search", *STUDIES[study], "--trials", NUM_TRIALS[study] + more),
        *("--workers", 1, "--device", "cpu", "--out", "out", "--json"),
    )
    return tuple(map(str, arguments))


def in_short(found: dict[str, object]) -> dict[str, object]:
    """Of what `search --json` and `front --json` say, what is the same on every machine."""
    return {
        "study": found["study"],
        "front": [
            [member[name] for name in ("id", "placement", "macs", "params", "top1")]
            for member in found["front"]
        ],
    }


def trials(study: str) -> list[list[object]]:
    """The trials of a study, in the filled folder: role, number, state, placement, evaluation."""
    query = """
        SELECT t.role, t.number, t.replicate, t.state, p.text, e.key, t.proposed, t.repaired
        FROM trials t JOIN studies s ON s.id = t.study_id JOIN specs p ON p.id = t.spec_id
        LEFT JOIN evaluations e ON e.id = t.evaluation_id WHERE s.name = ?
        ORDER BY t.role DESC, t.number, t.replicate
    """
    with sqlite3.connect(Path("out", "sharedattn.db")) as database:
        found = [list(row) for row in database.execute(query, (study,))]
    database.close()
    return found


def ask(arguments: tuple[str, ...]) -> dict[str, object]:
    """What a command says in JSON."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = main(list(arguments))
    assert code == 0, said.getvalue()
    return json.loads(said.getvalue())


if __name__ == "__main__":
    fill(Path())
    answers = {}
    for name in STUDIES:
        before = in_short(ask(("front", name, "--out", "out", "--json")))
        known = trials(name)
        after = in_short(ask(search(name, 1)))
        added = [row for row in trials(name) if row not in known]
        answers[name] = {"front": before["front"], "then": after["front"], "added": added}
    print(json.dumps(answers, indent=1))
