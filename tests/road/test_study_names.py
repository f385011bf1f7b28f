"""Names of studies, spaces and data: legal as folders, and of nothing else in `--out`."""

import json
from pathlib import Path

import pytest
from tiny import SPACE

from sharedattn.search.cli.main import main
from sharedattn.search.study_name import check_name, made_name


@pytest.mark.parametrize(
    "name",
    [
        "sharedattn.db",
        "sharedattn.db-wal",
        "sharedattn.db.1234.lock",
        "SharedAttn.db",
        "weights",
        "Weights",
        "checkpoints",
        "analysis",
        "..",
        ".",
        ".hidden",
        "-x",
        "a/b",
        "größe",
        "a b",
        "x" * 201,
        "x" * 300,
        "a\nb",
        "a\n",
    ],
)
def test_a_name_that_names_something_else_is_refused(lab, name) -> None:
    assert "`--study`" in lab.refused_search(f"--study={name}")


@pytest.mark.parametrize(
    ("study", "options"),
    [
        ("my.db", ("--storage", "sqlite:///out/my.db")),
        ("my.db-wal", ("--storage", "sqlite:///out/my.db")),
        ("my", ("--storage", "sqlite:///out/my/report.html")),
        ("my", ("--storage", "sqlite:///out/my/knee/x.db")),
    ],
)
def test_a_study_and_its_database_do_not_share_a_place(lab, study, options) -> None:
    said = lab.refused_search("--out", "out", "--study", study, *options)
    assert "would overlap" in said


@pytest.mark.parametrize("weights", ["out/my", "out/my/knee", "out/my/tune-x/y"])
def test_a_study_and_its_weights_do_not_share_a_place(lab, weights) -> None:
    said = lab.refused(
        *("search", "digit-pairs-vit", "--out", "out", "--study", "my", "--weights-dir", weights)
    )
    assert "would overlap" in said


def test_a_study_s_folder_is_no_file(lab) -> None:
    Path("out").mkdir()
    Path("out/my").write_text("mine")
    assert "is not a folder" in lab.refused_search("--out", "out", "--study", "my")
    assert Path("out/my").read_text() == "mine"


def test_places_beside_each_other_are_accepted(lab) -> None:
    for study, options in (
        ("my", ("--storage", "sqlite:///out/my/study.db")),
        ("weights2", ()),
        ("x" * 200, ()),
    ):
        assert lab.search("--out", "out", "--study", study, *options)[0] == 0
        assert Path("out", study, "report.html").is_file()


@pytest.mark.parametrize(
    ("space", "data", "made"),
    [
        ("tiny", "digit-pairs", "tiny-digit-pairs-abc123"),
        ("a.b_c", "my data!", "a.b_c-my-data--abc123"),
        ("größe", "digit-pairs", "gro-e-digit-pairs-abc123"),
        ("x日本", "²±é", "x--2-e-abc123"),
        ("s" * 100, "d" * 141, f"{'s' * 100}-{'d' * 141}-abc123"),
        ("tiny", "d" * 250, f"tiny-{'d' * 80}-abc123"),
        ("s" * 300, "d" * 250, f"{'s' * 80}-{'d' * 80}-abc123"),
    ],
)
def test_made_names_are_legal_and_those_that_were_stay(space, data, made) -> None:
    assert made_name(space, data, "abc123") == made
    assert len(made.encode()) <= 255
    if len(made) <= 200:
        check_name(made)


@pytest.mark.parametrize("name", ["größe", "x日本", "s" * 300, "a..b"])
def test_a_space_of_any_name_goes_all_the_way(lab, name) -> None:
    Path("odd.yaml").write_text(SPACE.replace("tiny", name), encoding="utf-8")
    code, out, err = lab.search("--json", space="odd.yaml")
    assert code == 0, err
    document = json.loads(out)
    study = document["study"]
    assert study.isascii()
    assert len(study) <= 255
    assert Path("sharedattn-out", study, "report.html").is_file()
    for command in ("front", "report"):
        assert lab.run(command, study)[0] == 0
    # Twice is the same study.
    assert json.loads(lab.search("--json", space="odd.yaml")[1])["study"] == study


def test_a_table_of_a_long_name_goes_all_the_way(lab) -> None:
    table = Path(f"{'d' * 245}.json")
    Path("table.json").rename(table)
    arguments = ["search", "tiny.yaml", "--evaluator", "table", "--table", str(table)]
    assert main([*arguments, "--trials", "1", "--confirm-seeds", "1"]) == 0
    assert len(lab.study()) < 200
