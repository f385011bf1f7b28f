"""Packing of made-up trainings: the table, its surrogate, its data card."""

import numpy as np
import placement_pack
import pytest
from placement_bench import BenchTrainings
from placement_pack import ceiling_tau, main
from placement_surrogate import cross_validated, features_of, predicted_curves
from trained_rows import Rows

from sharedattn.data import open_data
from sharedattn.placement import Placement
from sharedattn.search.tables import PlacementBench

NUM = 40
OPTIONS = ("--task=digit-count", "--epochs=2", f"--placements={NUM}", "--seeds=0,1", "--long=0")


@pytest.fixture(scope="module")
def trained():
    patch = pytest.MonkeyPatch()
    patch.setattr("sharedattn.data.digit_count.IMAGES_PER_EPOCH", 256)
    patch.setattr("sharedattn.data.digit_count.EVAL_IMAGES", 200)
    open_data.cache_clear()  # it holds the data at its full size, or holds it at this one later
    yield BenchTrainings("digit-count", epochs=2, num_placements=NUM, seeds=(0, 1), num_long=0)
    open_data.cache_clear()
    patch.undo()


def truth_of(placement):
    kinds = [layer.kind for layer in placement.layers]
    return 0.4 + 0.1 * kinds.count("V") + 0.05 * kinds.count("E") + 0.01 * len(kinds)


def write_rows(path, trained, *, leave_out=0, epochs=(1, 2)):
    rng = np.random.default_rng(0)
    rows = Rows(path, trained)
    jobs = trained.jobs()
    for job in jobs[: len(jobs) - leave_out]:
        top1 = truth_of(Placement.parse(job.placement)) + 0.001 * rng.standard_normal()
        row = trained.row(
            job,
            top1=top1,
            curve=[(epoch, top1 * epoch / 2) for epoch in epochs],
            cpu_s=5.0 * len(Placement.parse(job.placement).layers),
        )
        rows.append(row)
    return rows


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("placement_surrogate.NUM_TREES", 7)
    monkeypatch.setattr("placement_surrogate.NUM_FOLDS", 2)


def test_a_table_is_packed_from_rows_with_its_card(trained, quick, tmp_path, capsys):
    path, out, card = tmp_path / "rows.jsonl", tmp_path / "table.npz", tmp_path / "card.md"
    rows = write_rows(path, trained)
    arguments = [f"--rows={path}", f"--out={out}", f"--card={card}", *OPTIONS]
    main(arguments)
    assert f"{out}: {out.stat().st_size:,} bytes" in capsys.readouterr().out
    table = PlacementBench.load(out)
    assert len(table.placements) == trained.space.in_budget == 6039
    assert table.texts("measured") == tuple(trained.placements)
    assert table.top1.shape == (NUM, 2, 2) and table.seeds == (0, 1)
    for text in trained.placements[:3]:
        for seed in (0, 1):
            row = rows.get(text, seed, 2)
            assert table.curve("measured", text, seed).tolist() == [v for _, v in row.curve]
            assert table.seconds_of("measured", text, seed) == row.cpu_s
    assert np.isnan(table.inherited).all()
    # The made-up truth is nearly linear in the features.
    truth = [truth_of(Placement.parse(text)) for text in table.placements]
    assert np.abs(table.predicted[:, -1] - truth).mean() < 0.02
    errors = table.about["surrogate"]
    assert [e["rmse_points"] for e in errors] == sorted(e["rmse_points"] for e in errors)
    assert errors[0]["tau"] > 0.8
    text = card.read_text()
    assert f"Learning curves of {NUM} of the 6,039 placements of `digit-count-vit`" in text
    assert f"Shipped: {errors[0]['model']}." in text and "CC BY 4.0" in text
    assert "tau with trainings of 8 epochs, on 0 placements | not measured" in text
    before = out.read_bytes()
    main(arguments)
    assert out.read_bytes() == before


def test_missing_trainings_and_validations_are_named(trained, tmp_path, capsys):
    path, out = tmp_path / "rows.jsonl", tmp_path / "table.npz"
    arguments = [f"--rows={path}", f"--out={out}", f"--card={tmp_path / 'card.md'}", *OPTIONS]
    write_rows(path, trained, leave_out=3)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    missing = trained.jobs()[-3]
    assert ended.value.code == 2 and not out.exists()
    assert (
        f"3 of 80 trainings are missing, the first of {missing.placement} on seed 1"
        in capsys.readouterr().err
    )
    path.unlink()
    write_rows(path, trained, epochs=(2,))
    with pytest.raises(SystemExit):
        main(arguments)
    assert "was not validated after every epoch" in capsys.readouterr().err


def test_a_table_that_is_too_large_is_not_kept(trained, quick, tmp_path, monkeypatch, capsys):
    path, out = tmp_path / "rows.jsonl", tmp_path / "table.npz"
    write_rows(path, trained)
    monkeypatch.setattr(placement_pack, "MAX_BYTES", 1000)
    with pytest.raises(SystemExit):
        main([f"--rows={path}", f"--out={out}", f"--card={tmp_path / 'card.md'}", *OPTIONS])
    assert "bytes, more than 1,000" in capsys.readouterr().err and not out.exists()


def test_features_by_hand(trained):
    placements = [Placement.parse(p) for p in ("V1E1L1/s8/dia2/cb1", "N1/cb", "V4")]
    features = features_of(placements, trained.backbone)
    assert len(features) == 3 and np.isfinite(features).all()
    # No feature is the same for all, and no two of the placements look alike.
    assert (np.ptp(features, axis=0) > 0).all() and len(np.unique(features, axis=0)) == 3
    assert np.array_equal(features[::-1], features_of(placements[::-1], trained.backbone))
    # log2 of 8 slots, and 3 layers; of the others neither is a feature's value.
    assert [list(row).count(3.0) for row in features] == [2, 0, 1]


def test_cross_validation_sees_no_placement_that_it_predicts(quick):
    rng = np.random.default_rng(0)
    features, curves = rng.standard_normal((60, 5)), rng.random((60, 2))
    [error] = cross_validated(features, curves, ["trees"])
    # Of noise alone nothing can be predicted.
    assert abs(error.tau) < 0.3 and error.rmse_points > 100 * curves[:, 1].std() * 0.9
    line = features @ np.arange(1.0, 6.0) / 100 + 0.5
    [error] = cross_validated(features, np.column_stack([line, line]), ["ridge"])
    assert error.tau > 0.9 and error.rmse_points < 3


def test_predictions_are_accuracies_for_all(quick):
    features = np.random.default_rng(0).standard_normal((50, 3))
    curves = np.clip(0.5 + features[:30, :2], 0, 1)
    found = predicted_curves(features, list(range(30)), curves, "ridge")
    assert found.shape == (50, 2) and found.min() >= 0 and found.max() <= 1
    assert np.array_equal(found, np.round(found, 5))


def test_the_ceiling_is_one_without_noise_and_falls_with_it():
    means = np.linspace(0.2, 0.9, 30)
    assert ceiling_tau(np.column_stack([means, means])) == pytest.approx(1.0)
    little, much = (
        ceiling_tau(np.column_stack([means - noise, means + noise])) for noise in (0.01, 0.3)
    )
    assert 1.0 > little > 0.9 > 0.6 > much > 0
    assert ceiling_tau(means[:, None]) is None
