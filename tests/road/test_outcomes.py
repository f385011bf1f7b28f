"""What a search came to is said: why trials failed, and what is no better than guessing."""

import json
import sqlite3
from dataclasses import replace

import pytest

from sharedattn.search.evaluators.scratch import ScratchEvaluator

SEARCH = ("--workers", 2, "--confirm-seeds", 1)
ALL_VANILLA = "V2"


def search(run, tiny, tmp_path, *more):
    return run("search", tiny, "--out", tmp_path / "out", *SEARCH, *more)


@pytest.fixture
def evaluate(monkeypatch):
    """Sets what trials do in place of their training; `train` is the real thing."""
    train = ScratchEvaluator.evaluate

    def put(instead):
        def replaced(self, task, on_progress=None):
            return (yield from instead(lambda: train(self, task, on_progress), task))

        monkeypatch.setattr(ScratchEvaluator, "evaluate", replaced)

    return put


def raising(error, *, but=()):
    """Raises for every placement but some."""

    def instead(train, task):
        if str(task.spec.placement) not in but:
            raise error
        return (yield from train())

    return instead


# Failed trials


def test_a_failed_trial_says_why_as_it_fails_and_at_the_end(
    run, tiny, tmp_path, recipe, in_process, evaluate
):
    evaluate(raising(ValueError("bits must be between 1 and 8"), but=[ALL_VANILLA]))
    found = search(run, tiny, tmp_path, "--recipe", recipe(), "--trials", 6)
    assert found.code == 0
    # As it fails, and once for equal reasons; at the end all of them together.
    assert found.err.count("ValueError: bits must be between 1 and 8") == 1
    assert "search 1 failed: ValueError: bits must be between 1 and 8" in found.err
    assert "5 trials failed: ValueError: bits must be between 1 and 8" in found.out
    assert "Traceback" not in found.out + found.err
    later = run("front", "--out", tmp_path / "out", "--json")
    assert json.loads(later.out)["failures"] == [
        {
            "reason": "ValueError: bits must be between 1 and 8",
            "count": 5,
            "trials": [1, 2, 3, 4, 5],
        }
    ]
    [report] = (tmp_path / "out").rglob("report.html")
    assert "5 trials failed: ValueError: bits must be between 1 and 8" in report.read_text()


def test_other_reasons_are_told_apart(run, tiny, tmp_path, recipe, in_process, evaluate):
    def instead(train, task):
        letters = str(task.spec.placement)
        if "L" in letters:
            raise MemoryError("too large")
        if "N" in letters:
            raise KeyError("norm")
        return (yield from train())

    evaluate(instead)
    found = search(run, tiny, tmp_path, "--recipe", recipe(), "--trials", 12, "--json")
    failures = json.loads(found.out)["failures"]
    by_reason = {failure["reason"]: failure["count"] for failure in failures}
    assert by_reason == {"MemoryError: too large": 2, "KeyError: 'norm'": 6}
    assert [failure["count"] for failure in failures] == [6, 2]
    assert all(len(failure["trials"]) == failure["count"] for failure in failures)


@pytest.mark.parametrize("is_json", [False, True])
def test_where_all_trials_fail_their_reason_is_the_error(
    run, tiny, tmp_path, recipe, in_process, evaluate, is_json
):
    evaluate(raising(ValueError("bits must be between 1 and 8")))
    flags = ("--json",) if is_json else ()
    found = search(run, tiny, tmp_path, "--recipe", recipe(), "--trials", 4, *flags)
    assert found.code == 1
    assert "no trial is complete, 4 trials failed: ValueError: bits must be" in found.err
    assert "Traceback" not in found.out + found.err
    if is_json:
        document = json.loads(found.out)
        assert document["failures"][0]["count"] == 4
        assert (document["front"], document["ok"]) == ([], False)


def test_a_learning_rate_that_breaks_every_training_is_said(
    run, tiny, tmp_path, recipe, in_process
):
    found = search(run, tiny, tmp_path, "--recipe", recipe(lr=1000.0, epochs=2), "--trials", 3)
    assert found.code == 1
    assert "no trial is complete" in found.err
    assert "failed: FloatingPointError: " in found.err
    assert "lower the learning rate" in found.err


@pytest.mark.parametrize(
    "message",
    [
        "cannot reach postgresql://me:opensesame@host/db",
        "connect(password=opensesame)",
        "first line\nsecond line with s3://key:opensesame@bucket",
    ],
)
def test_a_reason_is_one_line_without_secrets(
    run, tiny, tmp_path, recipe, in_process, evaluate, message
):
    evaluate(raising(OSError(f"{message}\x1b[31m"), but=[ALL_VANILLA]))
    found = search(run, tiny, tmp_path, "--recipe", recipe(), "--trials", 3)
    shown = found.out + found.err
    assert "2 trials failed: OSError: " in found.out
    assert "opensesame" not in shown
    assert "\x1b[31m" not in shown
    later = run("front", "--out", tmp_path / "out", "--json")
    assert "opensesame" not in later.out
    [report] = (tmp_path / "out").rglob("report.html")
    assert "opensesame" not in report.read_text()


def test_a_failed_confirmation_is_counted_at_its_placement(
    run, tiny, tmp_path, recipe, in_process, evaluate
):
    def instead(train, task):
        if task.seed > 0:
            raise ValueError("unlucky")
        return (yield from train())

    evaluate(instead)
    found = run(
        "search", tiny, "--recipe", recipe(), "--trials", 1, "--workers", 1, "--confirm-seeds", 3,
        "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    [failure] = json.loads(found.out)["failures"]
    assert failure == {"reason": "ValueError: unlucky", "count": 2, "trials": [0]}
    assert "seed 1 failed: ValueError: unlucky" in found.err


def test_a_supernet_that_cannot_be_trained_says_why(
    run, tiny, tmp_path, recipe, in_process, monkeypatch
):
    def fail(self, images, labels, update):
        raise ValueError("bits must be between 1 and 8")

    monkeypatch.setattr("sharedattn.supernet.trainer.SupernetTrainer._accumulate", fail)
    found = run(
        "search", tiny, "--evaluator", "supernet", "--supernet-epochs", 1, "--recipe", recipe(),
        "--workers", 1, "--cpus-per-trial", 1, "--out", tmp_path / "out",
    )  # fmt: skip
    assert found.code == 1
    assert found.err.splitlines()[-1] == (
        "sharedattn: supernet failed: ValueError: bits must be between 1 and 8"
    )
    assert "Traceback" not in found.err


# Guessing


def scoring(top1_of):
    """Gives trials an accuracy in place of that of their training."""

    def instead(train, task):
        measured = yield from train()
        return replace(measured, top1=top1_of(task))

    return instead


def test_a_front_at_chance_says_so_and_what_to_raise(run, tiny, tmp_path, recipe, in_process):
    found = search(run, tiny, tmp_path, "--recipe", recipe(lr=0.0), "--trials", 4)
    assert found.code == 0
    text = " ".join(found.out.split())
    assert "warning: no placement on the front is above guessing" in text
    assert "guessing gets 0.500 (chance among 2 classes)" in text
    assert "200 validation images, the best of 4 trainings" in text
    assert "train for more than 1 epoch (--epochs)" in text
    assert "learning rate" in text
    # And later, from the database alone.
    document = json.loads(run("front", "--out", tmp_path / "out", "--json").out)
    [warning] = document["warnings"]
    assert warning in text
    [report] = (tmp_path / "out").rglob("report.html")
    html = report.read_text()
    assert "no placement on the front is above guessing" in html
    assert '<span class="doubt">not above guessing</span>' in html


def test_a_confirmed_front_is_judged_by_its_means(
    run, tiny, tmp_path, recipe, in_process, evaluate
):
    # Lucky once, by far; the mean of three is not above the bar of 0.626.
    evaluate(scoring(lambda task: 0.75 if task.seed == 0 else 0.5))
    found = run(
        "search", tiny, "--recipe", recipe(), "--trials", 6, "--workers", 1, "--confirm-seeds", 3,
        "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    document = json.loads(found.out)
    assert document["confirmed"]
    assert document["front"][0]["top1"] == pytest.approx(7 / 12)
    assert "no placement on the front is above guessing" in document["warnings"][0]


def test_members_at_chance_are_named(run, tiny, tmp_path, recipe, in_process, evaluate):
    evaluate(scoring(lambda task: 0.9 if "V" in str(task.spec.placement) else 0.51))
    found = search(run, tiny, tmp_path, "--recipe", recipe(), "--trials", 8, "--json")
    document = json.loads(found.out)
    at_chance = [member["id"] for member in document["front"] if member["top1"] < 0.6]
    assert 0 < len(at_chance) < len(document["front"])
    [warning] = document["warnings"]
    assert f"{len(at_chance)} of {len(document['front'])} placements on the front" in warning
    assert f"(id {', '.join(map(str, at_chance))})" in warning


def test_a_front_above_chance_has_no_warning(run, tiny, tmp_path, recipe, in_process, evaluate):
    evaluate(scoring(lambda task: 0.8))
    found = search(run, tiny, tmp_path, "--recipe", recipe(), "--trials", 4)
    assert "warning" not in found.out
    document = json.loads(run("front", "--out", tmp_path / "out", "--json").out)
    assert (document["warnings"], document["failures"]) == ([], [])


def test_always_the_largest_class_is_guessing_too(
    run, tiny, tmp_path, recipe, in_process, evaluate, monkeypatch
):
    monkeypatch.setattr(
        "sharedattn.data.digit_pairs.DigitPairs.class_counts", lambda self, split: (186, 14)
    )
    evaluate(scoring(lambda task: 0.93))
    found = search(run, tiny, tmp_path, "--recipe", recipe(), "--trials", 3, "--json")
    at_level, balance = json.loads(found.out)["warnings"]
    assert "guessing gets 0.930 (always answering the largest class)" in at_level
    assert "the classes differ much in size: 0 has 186 validation images and 1 14" in balance
    assert "would be right for 93.0% of them" in balance


def test_a_study_from_before_is_judged_by_chance(run, tiny, tmp_path, recipe, in_process):
    search(run, tiny, tmp_path, "--recipe", recipe(lr=0.0), "--trials", 2)
    [database] = (tmp_path / "out").glob("*.db")
    connection = sqlite3.connect(database)
    with connection:
        [(text,)] = connection.execute("SELECT data FROM studies").fetchall()
        document = json.loads(text)
        assert document.pop("class_counts")["validation"] == [100, 100]
        connection.execute("UPDATE studies SET data = ?", (json.dumps(document),))
    connection.close()
    found = run("front", "--out", tmp_path / "out", "--json")
    assert "chance among 2 classes" in json.loads(found.out)["warnings"][0]


def test_what_a_table_says_is_not_doubted(run, tiny, tmp_path, in_process):
    table = tmp_path / "table.json"
    table.write_text(json.dumps({p: 0.5 for p in ("V2", "V1L1", "V1", "V1N1", "N1V1", "N1")}))
    found = run(
        "search", tiny, "--evaluator", "table", "--table", table, "--trials", 2,
        "--confirm-seeds", 1, "--workers", 1, "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert json.loads(found.out)["warnings"] == []


@pytest.mark.parametrize(("lr", "is_learnt"), [(0.0, False), (3e-3, True)])
def test_a_single_training_at_chance_says_so(
    run, tmp_path, recipe, few_pairs, evaluate, lr, is_learnt
):
    evaluate(scoring(lambda task: 0.9 if is_learnt else 0.5))
    network = (
        "vit(class_token=false,depth=2,embed_dim=12,global_pool=avg,in_chans=1,num_classes=2,"
        "num_heads=2,patch_size=8)@16: V2"
    )
    arguments = ("train", network, "--recipe", recipe(lr=lr), "--to", tmp_path / "one")
    document = json.loads(run(*arguments, "--json").out)
    assert len(document["warnings"]) == (0 if is_learnt else 1)
    if not is_learnt:
        assert "not above guessing: guessing gets 0.500" in document["warnings"][0]
        assert "warning: not above guessing" in run(*arguments).out
