"""The file of PlacementBench: what is read is what was written, and what is wrong is named."""

import json

import numpy as np
import pytest
from made_up_bench import made_up_arrays, made_up_bench
from tiny import SPACE_WITH_CB

from sharedattn.errors import InputError
from sharedattn.search.tables import PlacementBench
from sharedattn.spaces.space import Space


@pytest.fixture
def space():
    return Space.from_yaml(SPACE_WITH_CB, "tiny")


@pytest.fixture
def bench(space):
    return made_up_bench(space)


def test_a_table_is_read_as_it_was_written_and_its_bytes_are_its_own(bench, tmp_path):
    path, again = tmp_path / "one.npz", tmp_path / "two.npz"
    bench.save(path)
    read = PlacementBench.load(path)
    assert read.key == bench.key and read.about == bench.about
    assert read.placements == bench.placements and len(read.placements) == 12
    for name in ("measured", "top1", "seconds", "inherited", "predicted", "predicted_s"):
        assert np.array_equal(getattr(read, name), getattr(bench, name))
    read.save(again)
    assert again.read_bytes() == path.read_bytes()
    assert (read.seeds, read.epochs) == ((0, 1, 2), 3)


def test_the_key_is_of_the_values_and_not_of_further_figures(space, bench):
    arrays = made_up_arrays(space)
    arrays["about"]["noise_points"] = 1.0
    assert PlacementBench(**arrays).key == bench.key
    arrays["top1"][0, 0, 0] += 1e-9
    assert PlacementBench(**arrays).key != bench.key


def test_the_truth_is_the_mean_over_seeds_or_what_is_predicted(bench):
    measured, whole = bench.truth("measured"), bench.truth("surrogate")
    assert list(measured) == list(bench.texts("measured")) == list(bench.placements[::2])
    assert list(measured.values()) == pytest.approx(bench.top1[:, :, -1].mean(axis=1))
    assert list(whole.values()) == pytest.approx(bench.predicted[:, -1])


def test_a_measured_training_is_that_of_its_seed(bench):
    text = bench.texts("measured")[3]
    for seed in range(6):
        assert np.array_equal(bench.curve("measured", text, seed), bench.top1[3, seed % 3])
        assert bench.seconds_of("measured", text, seed) == 10 + 3 * 3 + seed % 3
    assert bench.seconds_of("surrogate", bench.placements[5], 1) == 15.0


def test_a_predicted_training_has_the_noise_that_was_measured(bench):
    text = bench.placements[5]
    residuals = (bench.top1 - bench.top1.mean(axis=1, keepdims=True)) * np.sqrt(3 / 2)
    known = residuals.reshape(-1, 3)
    drawn = np.array([bench.curve("surrogate", text, seed) for seed in range(200)])
    noise = drawn - bench.predicted[5]
    nearest = [np.abs(known - one).max(axis=1).min() for one in noise]
    assert max(nearest) < 1e-12  # whole curves, no more than 25 placements away
    assert len({tuple(np.round(one, 9)) for one in noise}) > 12  # of 18
    assert np.array_equal(drawn[7], bench.curve("surrogate", text, 7))
    assert noise.std(axis=0) == pytest.approx(known.std(axis=0), rel=0.25)


def test_noise_stays_within_accuracies(space):
    arrays = made_up_arrays(space)
    arrays["predicted"] = np.ones_like(arrays["predicted"])
    bench = PlacementBench(**arrays)
    drawn = np.array([bench.curve("surrogate", "V2", seed) for seed in range(20)])
    assert drawn.max() == 1.0 and drawn.min() < 1.0


def test_a_placement_that_is_not_there_is_named(bench):
    with pytest.raises(KeyError, match="measured part of the table has no placement 'V9'"):
        bench.curve("measured", "V9", 0)
    other = bench.placements[1]
    with pytest.raises(KeyError, match="give --table-part surrogate"):
        bench.curve("measured", other, 0)


def _changed(name, index, value):
    def change(arrays):
        arrays[name] = arrays[name].copy()
        arrays[name][index] = value

    return change


def _twice(arrays):
    arrays["placements"] = (arrays["placements"][1], *arrays["placements"][1:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_changed("top1", (1, 2, 0), np.nan), "on seed 2 is missing; train it"),
        (_changed("top1", (1, 2, 0), 1.5), "from 0 to 1, but .* has 1.5 on seed 2"),
        (_changed("top1", (1, 2, 0), -0.5), "has -0.5 on seed 2"),
        (_changed("predicted", (1, 2), 1.5), "a predicted top1 is not from 0 to 1"),
        (_changed("seconds", (1, 2), np.nan), "seconds of a training are not finite"),
        (_changed("seconds", (1, 2), -1.0), "seconds of a training are below 0"),
        (_changed("measured", 1, 99), "a measured placement is not among"),
        (_changed("measured", 1, 0), "a placement stands twice"),
        (_twice, "a placement stands twice"),
        (lambda a: a.update(seconds=a["seconds"][:, :2]), r"`seconds` is of shape \(6, 2\)"),
    ],
)
def test_what_is_wrong_in_a_table_is_said_when_it_is_read(space, tmp_path, change, message):
    arrays = made_up_arrays(space)
    change(arrays)
    with pytest.raises(InputError, match=message):
        PlacementBench(**arrays)
    # The same from a file, which names it.
    path = tmp_path / "bad.npz"
    about = json.dumps({**arrays.pop("about"), "format": 1})
    np.savez(path, about=np.array(about), **arrays)
    with pytest.raises(InputError, match=f"bad.npz: .*{message}"):
        PlacementBench.load(path)


def test_what_is_no_table_is_refused(bench, tmp_path):
    for name, content in (("text.npz", b"V2: 0.9"), ("empty.npz", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name} is no table of PlacementBench"):
            PlacementBench.load(tmp_path / name)
    with pytest.raises(InputError, match="is no table of PlacementBench"):
        PlacementBench.load(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    with pytest.raises(InputError, match="other.npz is no table of PlacementBench"):
        PlacementBench.load(tmp_path / "other.npz")
    np.savez(tmp_path / "later.npz", about=np.array(json.dumps({"format": 2})))
    with pytest.raises(InputError, match="later.npz is of a later version"):
        PlacementBench.load(tmp_path / "later.npz")
