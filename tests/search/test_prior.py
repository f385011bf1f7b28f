"""A search that begins with the accuracies of an earlier study: what it keeps, and refuses."""

import json

import pytest
import tiny
from commands import document, refusal, run

from sharedattn.results.database.store import Store
from sharedattn.search.searchers.prior import PRIOR_NOTE

SPACE = tiny.SPACE.replace("}", ", E: 0..1}\n    slots: [3]")
TOP1 = {
    "V2": 0.9, "V1L1": 0.8, "V1": 0.7, "V1N1": 0.69, "N1V1": 0.65, "N1": 0.5, "E1/s3": 0.72,
    "E1V1/s3": 0.85, "V1E1/s3": 0.84, "E1N1/s3": 0.71, "N1E1/s3": 0.73,
}  # fmt: skip
EARLIER = {text: 0.5 + 0.6 * (top1 - 0.5) for text, top1 in TOP1.items()}


@pytest.fixture
def search(tmp_path, trials_run_here):
    """The arguments of a search of a table, and a database with an earlier study of another."""
    space = tmp_path / "tiny.yaml"
    space.write_text(SPACE)

    def arguments(table, *options):
        path = tmp_path / f"{len(list(tmp_path.glob('*.json')))}.json"
        path.write_text(json.dumps(table))
        return (
            "search", space, "--evaluator", "table", "--table", path, "--out", tmp_path / "out",
            "--confirm-seeds", 1, "--workers", 1, *options,
        )  # fmt: skip

    return arguments


def note(tmp_path, name):
    url = f"sqlite:///{tmp_path / 'out' / 'sharedattn.db'}"
    with Store.open(url, read_only=True) as store:
        study = store.study(name)
        order = [row.placement for row in store.trials.of(study)]
        return store.note(study, PRIOR_NOTE), order


def test_the_earlier_accuracies_are_kept_with_the_study(capsys, search, tmp_path):
    document(capsys, *search(EARLIER, "--study", "before", "--trials", 7))
    known, order = note(tmp_path, "before")
    assert known is None
    begun = ("--study", "after", "--prior", "before", "--trials")
    after = search(TOP1, *begun, 6)
    plan = document(capsys, *after, "--dry-run")["plan"]
    assert plan["prior"] == {"study": "before", "accuracies": 7}
    said = run(capsys, *after)
    assert said.code == 0, said.err
    assert "prior   begins with 7 accuracies of before\n" in said.err
    kept, _ = note(tmp_path, "after")
    assert kept == {text: EARLIER[text] for text in order}

    # More trials of the earlier study are nothing to a study that has begun.
    document(capsys, *search(EARLIER, "--study", "before", "--trials", 11))
    assert document(capsys, *after, "--dry-run")["plan"] == plan
    document(capsys, *after[:-1], 9)
    assert note(tmp_path, "after")[0] == kept
    document(capsys, *search(EARLIER, "--study", "seven", "--trials", 7))
    whole = search(TOP1, "--study", "whole", "--prior", "seven", "--trials", 9)
    document(capsys, *whole)
    assert note(tmp_path, "whole") == note(tmp_path, "after")
    # A study that begins with nothing is another one.
    message = refusal(capsys, *after[:-6], "--study", "after", "--trials", 9)
    assert "prior was 'before' and is now absent" in message


def test_what_a_search_cannot_begin_with_is_refused(capsys, search, tmp_path):
    after = search(TOP1, "--trials", 6, "--prior")
    message = refusal(capsys, *after, "before")
    assert "`--prior` is a study of the same database, but " in message
    document(capsys, *search(EARLIER, "--study", "before", "--trials", 3))
    message = refusal(capsys, *after, "befor")
    assert "has no study 'befor'; it has 'before'" in message
    message = refusal(capsys, *after, "before")
    assert "of whose 3 placements with an accuracy 3 are members of this search's space" in message
    assert "a model needs 4" in message
    message = refusal(capsys, *after, "before", "--searcher", "stratified")
    assert "--prior requires --searcher model" in message
    message = refusal(capsys, *after, "before", "--study", "before")
    assert "`--prior` is 'before', which is this study itself" in message


def test_placements_that_are_no_members_are_left_out(capsys, search, tmp_path):
    document(capsys, *search(EARLIER, "--study", "before", "--trials", 11))
    narrow = tmp_path / "narrow.yaml"
    narrow.write_text(tiny.SPACE)
    after = search(TOP1, "--study", "after", "--prior", "before", "--trials", 2)
    document(capsys, "search", narrow, *after[2:])
    kept, _ = note(tmp_path, "after")
    assert kept == {text: top1 for text, top1 in EARLIER.items() if "E" not in text}
    # Members outside the budget are known all the same.
    tight = search(TOP1, "--study", "tight", "--prior", "before", "--trials", 2)
    document(capsys, *tight, "--max-macs", "60%")
    assert len(note(tmp_path, "tight")[0]) == 11
