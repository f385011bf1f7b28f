"""The yardstick at a tiny size: it trains, goes on where it was, and its figures are right."""

import json
from functools import partial

import pytest
import yardstick
from trained_rows import Job, Rows
from yardstick import Bench, Line, figures_of, lines_of, main

from sharedattn.data import open_data

TINY = {"long_epochs": 2, "trial_epochs": 1, "num_placements": 3, "seeds": (0, 1)}
OPTIONS = ("--long-epochs=2", "--trial-epochs=1", "--placements=3", "--seeds=0,1")


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.setattr("sharedattn.data.digit_count.IMAGES_PER_EPOCH", 256)
    monkeypatch.setattr("sharedattn.data.digit_count.EVAL_IMAGES", 200)
    monkeypatch.setattr(yardstick, "NAMED", ("N1/cb", "V2", "V4"))
    monkeypatch.setattr(yardstick, "GROWING", ("V4",))
    open_data.cache_clear()  # it holds the data at its full size, or holds it at this one later
    yield Bench("digit-count", **TINY)
    open_data.cache_clear()


def row_of(bench, job, top1):
    return bench.row(job, top1=top1, curve=[(job.epochs, top1)], cpu_s=0.5)


def test_placements_are_spread_over_macs_and_differ():
    bench = Bench("digit-count")
    macs = [bench.macs(placement) for placement in bench.placements]
    assert len(set(bench.placements)) == yardstick.NUM_PLACEMENTS >= 24
    assert macs == sorted(macs)
    assert set(yardstick.NAMED) <= set(bench.placements)
    assert bench.half_macs == bench.macs("V2")
    kinds = [set(placement.partition("/")[0]) & set("VLEN") for placement in bench.placements]
    assert sum(found <= {"E", "N"} for found in kinds) >= 5
    assert sum(m <= bench.half_macs for m in macs) >= 8
    assert sum(m > bench.half_macs for m in macs) >= 8


def test_jobs_are_of_every_seed_and_length_once(bench):
    jobs = bench.jobs()
    assert len(jobs) == len(set(jobs)) == 3 * 2 * 2 + 1
    assert Job(placement="V4", seed=0, epochs=4) in jobs  # twice the long one
    assert [job.seed for job in jobs] == [0] * 7 + [1] * 6


def test_it_trains_what_is_missing_and_only_that(bench, tmp_path, monkeypatch, capsys):
    path = tmp_path / "new" / "rows.jsonl"
    done = Rows(path, bench)
    for job in bench.jobs()[:-1]:
        done.append(row_of(bench, job, 0.5))

    def in_this_process(rows, make, num_workers):
        for job in rows.missing():
            rows.append(bench.train(job))

    monkeypatch.setattr(yardstick, "train_all", in_this_process)
    main([f"--rows={path}", *OPTIONS])
    assert "13 of 13 trainings; 3 of 3 placements on seeds 0, 1" in capsys.readouterr().out
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 13
    last = rows[-1]
    assert (last["placement"], last["seed"], last["epochs"]) == ("V4", 1, 2)
    assert last["curve"][-1] == [2, last["top1"]] and 0 < last["top1"] < 1
    before = path.read_bytes()
    main([f"--rows={path}", *OPTIONS, "--json"])
    assert path.read_bytes() == before
    document = json.loads(capsys.readouterr().out)
    assert (document["trainings"], document["of"]) == (13, 13)


def test_workers_give_the_same_rows(tmp_path):
    # In processes of their own, which no monkeypatch reaches: one epoch of one placement.
    sizes = {"long_epochs": 1, "trial_epochs": 1, "num_placements": 1, "seeds": (3,)}
    make = partial(Bench, "digit-count", **sizes)
    bench = make()
    rows = Rows(tmp_path / "rows.jsonl", bench)
    yardstick.train_all(rows, make, 1)
    assert not rows.missing()
    [job] = bench.jobs()
    assert rows.get(job.placement, 3, 1).top1 == bench.train(job).top1


def test_a_line_that_was_cut_off_and_rows_of_another_recipe_are_trained_again(bench, tmp_path):
    path = tmp_path / "rows.jsonl"
    first, second, third = bench.jobs()[:3]
    rows = Rows(path, bench)
    rows.append(row_of(bench, first, 0.25))
    other = {**json.loads(path.read_text()), "seed": second.seed, "placement": second.placement}
    with path.open("a") as file:
        file.write(json.dumps({**other, "recipe": "0" * 12}) + "\n")
        file.write(json.dumps(other)[:-20])
    again = Rows(path, bench)
    assert len(again) == 1 and second in again.missing()
    again.append(row_of(bench, third, 0.75))
    final = Rows(path, bench)
    assert final.get(first.placement, first.seed, first.epochs).top1 == 0.25
    assert final.get(third.placement, third.seed, third.epochs).top1 == 0.75
    assert len(final) == 2


def test_figures_of_a_table_made_by_hand(bench, tmp_path, capsys):
    rows = Rows(tmp_path / "rows.jsonl", bench)
    top1 = {"N1/cb": (0.60, 0.62), "V2": (0.85, 0.87), "V4": (0.90, 0.90)}
    trial = {"N1/cb": (0.40, 0.50), "V2": (0.55, 0.60), "V4": (0.60, 0.55)}
    for placement in bench.placements:
        for seed in bench.seeds:
            for epochs, of in ((2, top1), (1, trial)):
                job = Job(placement=placement, seed=seed, epochs=epochs)
                rows.append(row_of(bench, job, of[placement][seed]))
    lines, seeds = lines_of(bench, rows)
    assert seeds == (0, 1)
    figures = figures_of(bench, lines, seeds)
    assert (figures.best.placement, figures.best_half.placement) == ("V4", "V2")
    assert figures.cheapest.placement == "N1/cb"
    assert figures.half_costs == pytest.approx(4.0)
    assert figures.cheapest_lacks == pytest.approx(29.0)
    # Of seed 0 all 3 pairs agree, of seed 1 two do and one does not: (1 + 1/3) / 2.
    assert figures.tau.value == pytest.approx(2 / 3)
    yardstick.print_figures(figures)
    # 5 and 3 points on the two seeds: a mean of 4, and its standard error is 1.
    printed = capsys.readouterr().out
    assert "4.0 ± 1.0 points from V4 to V2" in printed
    assert printed.count("REACHED") == 3
    # Both costs rank as the long trainings do.
    assert (figures.macs_tau.value, figures.params_tau.value) == (1.0, 1.0)
    assert "the same of MACs 1.00 (" in printed


def test_accuracies_on_the_way_of_a_trial_are_ranked_by_hand(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(yardstick, "NAMED", ("N1/cb", "V2", "V4"))
    monkeypatch.setattr(yardstick, "GROWING", ())
    bench = Bench("digit-count", long_epochs=5, trial_epochs=3, num_placements=3, seeds=(0, 1))
    rows = Rows(tmp_path / "rows.jsonl", bench)
    # Of seed 0 the order turns over after epoch 1, of seed 1 never.
    curves = {
        ("N1/cb", 0): (0.5, 0.3, 0.3),
        ("V2", 0): (0.4, 0.4, 0.4),
        ("V4", 0): (0.3, 0.5, 0.5),
        ("N1/cb", 1): (0.1, 0.2, 0.3),
        ("V2", 1): (0.2, 0.3, 0.4),
        ("V4", 1): (0.3, 0.4, 0.5),
    }
    for (placement, seed), top1 in curves.items():
        job = Job(placement=placement, seed=seed, epochs=3)
        curve = list(enumerate(top1, 1))
        rows.append(bench.row(job, top1=top1[-1], curve=curve, cpu_s=0.5))
        long = {"N1/cb": 0.6, "V2": 0.8, "V4": 0.7}[placement]
        rows.append(row_of(bench, Job(placement=placement, seed=seed, epochs=5), long))
    lines, seeds = lines_of(bench, rows)
    (one, one_end, one_long), (two, two_end, two_long) = yardstick.rungs_of(
        bench, rows, lines, seeds
    )
    assert (one, two) == (1, 2)
    assert (one_end, two_end) == (0.0, 1.0)
    # With the long order N1, V4, V2 one pair of three differs: -1/3 and +1/3, and twice 1/3.
    assert one_long.value == pytest.approx(0.0)
    assert two_long.value == pytest.approx(1 / 3)
    yardstick.print_table(bench, rows)
    assert "| 1 | 0.00 | 0.00 (" in capsys.readouterr().out


def test_a_figure_below_its_target_is_called_missed(capsys):
    near = [
        Line(placement=text, macs=macs, params=params, long=(top1,) * 2, trial=(top1,) * 2)
        for text, macs, params, top1 in (
            ("N1/cb", 1, 7, 0.80),
            ("V2", 2, 5, 0.86),
            ("V4", 4, 6, 0.87),
        )
    ]
    figures = figures_of(type("", (), {"half_macs": 2}), near, (0, 1))
    yardstick.print_figures(figures)
    *lines, of_costs = capsys.readouterr().out.splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["missed", "missed", "REACHED"]
    # Of the three pairs, params have one right: (1 - 2) / 3.
    assert figures.params_tau.value == pytest.approx(-1 / 3)
    assert of_costs.startswith("the same of MACs 1.00 (")
    yardstick.print_figures(figures, is_whole=False)
    assert capsys.readouterr().out.count("open, the table is not whole") == 3


def test_too_few_trainings_have_no_figures(bench, tmp_path, capsys):
    yardstick.print_table(bench, Rows(tmp_path / "none.jsonl", bench))
    printed = capsys.readouterr().out
    assert "0 of 13 trainings" in printed and "too few trainings" in printed
