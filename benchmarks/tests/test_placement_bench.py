"""PlacementBench at a tiny size: what it trains, where it goes on, and its figures."""

import json

import numpy as np
import placement_bench
import pytest
from placement_bench import BenchTrainings, Inherited, complete_seeds, document_of, main
from trained_rows import Rows

from sharedattn.data import open_data

OPTIONS = ("--task=digit-count", "--epochs=1", "--placements=3", "--long=2", "--seeds=0,1")


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.setattr("sharedattn.data.digit_count.IMAGES_PER_EPOCH", 256)
    monkeypatch.setattr("sharedattn.data.digit_count.EVAL_IMAGES", 200)
    open_data.cache_clear()  # it holds the data at its full size, or holds it at this one later
    yield BenchTrainings("digit-count", epochs=1, num_placements=3, seeds=(0, 1), num_long=2)
    open_data.cache_clear()


def row_of(bench, job, top1, cpu_s=3.6):
    return bench.row(job, top1=top1, curve=[(job.epochs, top1)], cpu_s=cpu_s)


def in_this_process(rows, make, num_workers):
    trainings = make()
    for job in rows.missing():
        rows.append(trainings.train(job))


def test_jobs_are_all_of_a_seed_before_the_next(bench):
    jobs = bench.jobs()
    assert bench.placements[0] == "V4" and bench.long == bench.placements[:2]
    assert (bench.epochs, bench.long_epochs) == (1, 4)
    assert [(job.seed, job.epochs) for job in jobs] == [
        *((0, epochs) for epochs in (1, 1, 1, 4, 4)),
        *[(1, 1)] * 3,
    ]
    assert list(bench.validated_epochs(jobs[3])) == [1, 2, 3]


def test_the_recipe_says_how_long_and_the_default_is_at_least_600_placements():
    bench = BenchTrainings("digit-count")
    assert bench.epochs == bench.recipe(bench.epochs).epochs == 16
    assert len(bench.jobs()) == 3 * 600 + 40


def test_it_trains_what_is_missing_and_prints_figures(bench, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(placement_bench, "train_all", in_this_process)
    scores = [0.25, 0.75]
    monkeypatch.setattr(
        placement_bench,
        "inherited_top1",
        lambda space, task, recipe, supernet, members, seed: (
            [scores[str(m) == "V4"] for m in members],
            1.0,
            2.0,
        ),
    )
    path = tmp_path / "rows.jsonl"
    done = Rows(path, bench)
    jobs = bench.jobs()
    for job in (*jobs[:4], *jobs[5:]):
        done.append(row_of(bench, job, 0.5))
    main([f"--rows={path}", *OPTIONS])
    printed = capsys.readouterr().out
    assert "digit-count, 1 epochs: 8 of 8 trainings; 3 placements on seeds 0, 1" in printed
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 8
    assert [epoch for epoch, _ in rows[-1]["curve"]] == [1, 2, 3, 4]
    assert rows[-1]["curve"][-1][1] == rows[-1]["top1"]
    scored = json.loads((tmp_path / "rows-inherited.json").read_text())
    assert len(scored["top1"]) == bench.space.in_budget and scored["train_s"] == 1.0
    monkeypatch.setattr(placement_bench, "inherited_top1", None)
    before = path.read_bytes()
    main([f"--rows={path}", *OPTIONS, "--json"])
    assert path.read_bytes() == before
    document = json.loads(capsys.readouterr().out)
    assert (document["trainings"], document["of"]) == (8, 8)
    assert document["inherited_tau"]["value"] == 0.0  # all means are 0.5


def test_figures_of_a_table_made_by_hand(bench, tmp_path):
    rows = Rows(tmp_path / "rows.jsonl", bench)
    one, two, three = bench.placements
    short = {one: (0.90, 0.94), two: (0.50, 0.56), three: (0.70, 0.50)}
    for job in bench.jobs():
        top1 = short[job.placement][job.seed] if job.epochs == 1 else 0.9
        rows.append(row_of(bench, job, top1))
    inherited = Inherited(tmp_path / "none.json", bench)
    inherited.top1 = {one: 0.9, two: 0.1, three: 0.2}
    document = document_of(bench, rows, inherited)
    # Variances of two values are half the squared difference.
    variances = [0.04**2 / 2, 0.06**2 / 2, 0.2**2 / 2]
    assert document["noise_points"] == pytest.approx(100 * np.sqrt(np.mean(variances)))
    # Two of three pairs agree.
    assert document["seeds_tau"] == pytest.approx(1 / 3)
    assert document["inherited_tau"]["value"] == pytest.approx(1.0)
    assert document["long_tau"] is None  # of two placements
    assert document["cpu_hours_left"] == 0.0
    # By MACs: the cheapest, the third, all-vanilla; means 0.53, 0.60, 0.92.
    assert [member["placement"] for member in document["front"]] == [two, three, one]
    assert [member["top1"] for member in document["front"]] == pytest.approx([0.53, 0.6, 0.92])


def test_a_part_is_a_table_of_the_first_seed(bench, tmp_path):
    rows = Rows(tmp_path / "rows.jsonl", bench)
    inherited = Inherited(tmp_path / "none.json", bench)
    assert complete_seeds(bench, rows) == ([], ())
    assert document_of(bench, rows, inherited)["front"] == []
    for job in bench.jobs()[:2]:
        rows.append(row_of(bench, job, 0.5))
    assert complete_seeds(bench, rows) == (bench.placements[:2], (0,))
    document = document_of(bench, rows, inherited)
    # 3.6 s an epoch: of one epoch 1 + 3 are missing, and 2 of four.
    assert document["cpu_hours_left"] == pytest.approx(3.6 * (4 + 2 * 4) / 3600)
    assert document["noise_points"] is None and document["seeds_tau"] is None
    for job in bench.jobs()[2:5]:
        rows.append(row_of(bench, job, 0.5))
    assert complete_seeds(bench, rows) == (bench.placements, (0,))


def test_scores_of_another_supernet_are_not_kept(bench, tmp_path):
    path = tmp_path / "inherited.json"
    path.write_text(json.dumps({"supernet_recipe": "0" * 12, "top1": {"V4": 0.5}}))
    assert Inherited(path, bench).top1 == {}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--placements=6040", "`--placements` is 6040; give from 2 to 6039, the size of digit-"),
        ("--epochs=0", "`--epochs` is 0; give at least 1"),
        ("--seeds=0,1,0", "`--seeds` is 0,1,0; give each seed once"),
    ],
)
def test_bad_options_end_before_any_training(option, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*OPTIONS, option])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_means_over_seeds_have_a_tau_with_the_longer_trainings(bench, tmp_path):
    bench.long = bench.placements
    rows = Rows(tmp_path / "rows.jsonl", bench)
    for job in bench.jobs():
        number = bench.placements.index(job.placement)
        rows.append(row_of(bench, job, number / 10 if job.epochs == 1 else 1 - number / 10))
    assert document_of(bench, rows, Inherited(tmp_path / "none.json", bench))["long_tau"][
        "value"
    ] == pytest.approx(-1.0)


def test_a_training_that_stands_twice_ends_the_command(bench, tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    job = bench.jobs()[0]
    rows = Rows(path, bench)
    rows.append(row_of(bench, job, 0.5))
    with path.open("a") as file:
        file.write(path.read_text().replace("0.5", "0.75"))
    with pytest.raises(SystemExit) as ended:
        main([f"--rows={path}", *OPTIONS, "--print-only"])
    assert ended.value.code == 2
    assert "V4, seed 0, 1 epochs twice, with top1 0.5 and 0.75" in capsys.readouterr().err
