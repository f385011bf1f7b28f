"""The coverage script on a few trials: what it counts, and what it prints."""

import pytest

from benchmarks.explain_coverage import Tally, options_of, print_coverage, run
from sharedattn.errors import InputError


def test_a_tally_counts_what_is_covered():
    tally = Tally()
    for truth, low, high in ((0.1, 0.0, 0.2), (0.3, 0.0, 0.2), (0.0, 0.0, 0.4)):
        tally.add("effects", truth, low, high)
    tally.num_said, tally.num_asked = 1, 4
    tally.wrong_sign += [True, False]
    found = tally.to_json()
    assert found["effects"] == {
        "covered": pytest.approx(2 / 3),
        "of": 3,
        "width": pytest.approx(0.8 / 3),
    }
    assert found["said"] == 0.25 and found["clear"] == {"wrong_sign": 1, "of": 2}


def test_intervals_of_stratified_trials_cover_the_truth(capsys):
    options = options_of(
        ["--seeds", "2", "--model-seeds", "0", "--trials", "31", "--tables", "saturating"]
    )
    (entry,) = run(options)
    assert (entry["table"], entry["design"], entry["trials"]) == ("saturating", "stratified", 31)
    assert entry["effects"]["of"] == 20 and entry["effects"]["covered"] >= 0.75
    assert entry["layers"]["covered"] >= 0.75
    print_coverage([entry])
    out = capsys.readouterr().out
    assert "| saturating | stratified | 31 |" in out and "effects: " in out


def test_bad_options_are_refused():
    with pytest.raises(InputError, match="`--tables` has other"):
        options_of(["--tables", "other"])
    with pytest.raises(InputError, match="`--seeds` and `--trials`"):
        options_of(["--trials", "0"])
