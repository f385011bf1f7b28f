"""Tables of accuracies and numbers of options: each means one thing, or the command is refused."""

import json
from pathlib import Path

import pytest
from tiny import BACKBONE

PAIRS = [("V2", 0.9), ("V1L1", 0.8), ("V1", 0.7), ("V1N1", 0.7), ("N1V1", 0.65), ("N1", 0.5)]


def written(*pairs: tuple[str, str]) -> None:
    """A table of these pairs of texts, beside the usual ones."""
    lines = [f"{json.dumps(text)}: {value}" for text, value in PAIRS]
    lines += [f"{json.dumps(text)}: {value}" for text, value in pairs]
    Path("table.json").write_text("{" + ", ".join(lines) + "}", encoding="utf-8")


NO_FRACTIONS = ["true", "false", "NaN", "Infinity", "-Infinity", "1.5", "-0.1", "1e400", "null"]
NO_FRACTIONS += ['"0.9"', "[]", "[true]", "[0.5, NaN]", "{}", '{"a": 0.5}', "[[0.5]]"]


@pytest.mark.parametrize("value", NO_FRACTIONS)
def test_what_is_no_fraction_is_refused(lab, value) -> None:
    written(("V1/cb", value))
    said = lab.refused_search()
    assert "top1 in a table is a number from 0 to 1" in said
    assert "'V1/cb'" in said


@pytest.mark.parametrize(
    ("text", "both"),
    [
        ("V2", "as 'V2'"),
        ("V1V1", "as 'V2' and 'V1V1'"),
        ("V,V", "as 'V2' and 'V,V'"),
        ("V1L1/full", "as 'V1L1' and 'V1L1/full'"),
    ],
)
def test_a_placement_that_stands_twice_is_named(lab, text, both) -> None:
    written((text, "0.1"))
    said = lab.refused_search()
    assert both in said
    assert "twice" in said


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "is not:"),
        (b"[]", "is not"),
        (b"{}", "is not"),
        (b"[" * 100_000, "is not:"),
        (b"\xff\xfe", "is not:"),
        (b'{"V2": ' + b"9" * 5000 + b"}", "is not:"),
        (b'{"V2": 0.5, "x": 0.5}', "'x', which is no placement"),
        (b'{"V2": 0.5, "V2|V2": 0.5}', "of 2 stages, but the backbone has 1"),
    ],
)
def test_what_is_no_table_is_refused(lab, content, rule) -> None:
    Path("table.json").write_bytes(content)
    assert rule in lab.refused_search()


TRAIN = ("train", f"{BACKBONE}: V2", "--to", "there")
TABLE = ("search", "tiny.yaml", "--evaluator", "table", "--table", "table.json")
HUGE = [str(2**63), str(2**64), str(10**30), "9" * 400]


@pytest.mark.parametrize("value", ["-1", *HUGE])
@pytest.mark.parametrize("command", [TABLE, TRAIN])
def test_a_seed_that_the_database_does_not_hold_is_refused(lab, command, value) -> None:
    assert "`--seed` is a whole number from 0 to 92233720" in lab.refused(
        *command, f"--seed={value}"
    )


def test_the_last_seed_leaves_room_for_its_confirmations(lab) -> None:
    most = 2**63 - 1
    assert lab.search("--seed", most - 1, "--study", "last")[0] == 0
    assert "`--seed`" in lab.refused_search("--seed", most)
    assert "`--seed`" in lab.refused(*TABLE, "--seed", most - 1, "--confirm-seeds", 3)
    code, out, _ = lab.run(*TABLE, "--seed", most - 3, "--trials", 2, "--json")
    assert code == 0
    assert json.loads(out)["confirmed"] is True


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--trials", ["0", "-1", str(2**31), *HUGE]),
        ("--confirm-seeds", ["0", "-1", str(2**31), *HUGE]),
        ("--workers", ["0", "-1", "100001", *HUGE]),
        ("--cpus-per-trial", ["0", "-1", "100001", *HUGE]),
        ("--gpus-per-trial", ["-1", "1.5", "nan", "inf", "-inf", "1e400"]),
    ],
)
def test_numbers_out_of_all_bounds_are_refused(lab, option, values) -> None:
    for value in values:
        assert option in lab.refused(*TABLE, f"{option}={value}")


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--max-latency-ms", ["0", "-1", "nan", "inf", "-inf", "1e400"]),
        ("--latency-batch-size", ["0", "-1", str(2**31), *HUGE]),
        ("--epochs", ["0", "-1", "100001", *HUGE]),
        ("--supernet-epochs", ["0", "-1", *HUGE]),
        ("--processes-per-trial", ["0", "-1", *HUGE]),
        ("--max-macs", ["0", "-1", "nan", "inf", "1e400", "--"]),
        ("--rungs", ["0", "-1", "1,1", "2,1", "", ",", "1.5", "nan", HUGE[-1]]),
        ("--resources-per-trial", ["", "=1", "a=", "a=nan", "a=inf", "a=0", "a=1,a=2", "a=b=1"]),
    ],
)
def test_other_numbers_out_of_bounds_are_refused(lab, option, values) -> None:
    extra = {
        "--max-latency-ms": (),
        "--latency-batch-size": ("--max-latency-ms", "3"),
        "--supernet-epochs": ("--evaluator", "supernet"),
        "--rungs": ("--early-stopping", "mo-asha"),
        "--resources-per-trial": ("--executor", "ray", "--address", "127.0.0.1:1"),
    }.get(option, ())
    for value in values:
        lab.refused("search", "digit-pairs-vit", *extra, f"{option}={value}")


@pytest.mark.parametrize(
    "arguments",
    [
        ("analyze", f"{BACKBONE}: V2", "--images", "0"),
        ("analyze", f"{BACKBONE}: V2", f"--images={HUGE[0]}"),
        ("analyze", f"{BACKBONE}: V2", "--seeds", "1"),
        ("analyze", f"{BACKBONE}: V2", f"--seeds={HUGE[0]}"),
        (*TRAIN, f"--processes-per-trial={HUGE[0]}"),
        (*TRAIN, f"--epochs={HUGE[-1]}"),
    ],
)
def test_numbers_of_other_commands_are_refused(lab, arguments) -> None:
    lab.refused(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("space", ""),
        ("front", "--out="),
        ("front", "--out", ""),
        ("front", "--storage="),
        ("front", "--out=--"),
        ("space", "tiny.yaml", "--max-macs=--"),
        ("verify", "a" * 300),
        ("verify", "a/" * 3000),
        ("front", "--out", "a" * 300),
        ("report", "--out", "a" * 300),
        ("search", "digit-pairs-vit", "--evaluator", "supernet", "--weights", "a" * 300),
    ],
)
def test_empty_and_overlong_arguments_are_refused(lab, arguments) -> None:
    lab.refused(*arguments)
