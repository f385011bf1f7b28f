"""Whether half the layers lack enough: hand-made rows, and a real run at a tiny size."""

import small_folders
from needs_layers import HALF, WHOLE, Line, main, verdict


class Asked:
    """What a verdict depends on of the trainings."""

    epochs = (2, 4)
    seeds = (0, 1)


def test_the_verdict_is_at_the_length_that_is_best_for_the_whole_network():
    short = Line(epochs=2, whole=(0.5, 0.6), half=(0.5, 0.6))
    enough = Line(epochs=4, whole=(0.70, 0.80), half=(0.68, 0.77))
    assert enough.points == [100 * (0.70 - 0.68), 100 * (0.80 - 0.77)]
    assert verdict([short, enough], Asked()).startswith("needs its layers: 2.5 points at 4 epochs")
    too_little = Line(epochs=4, whole=(0.7, 0.8), half=(0.69, 0.79))
    assert verdict([short, too_little], Asked()).startswith("does not need its layers: 1.0")
    # A longer training that is worse does not count.
    overfitted = Line(epochs=4, whole=(0.4, 0.5), half=(0.2, 0.3))
    assert verdict([short, overfitted], Asked()).startswith("does not need its layers: 0.0")


def test_a_verdict_waits_for_every_training():
    half_done = Line(epochs=4, whole=(0.7,), half=(0.6,))
    whole = Line(epochs=2, whole=(0.5, 0.6), half=(0.5, 0.6))
    assert verdict([whole, half_done], Asked()) == "open, trainings are missing"
    assert verdict([], Asked()) == "open, trainings are missing"


def test_it_trains_both_networks_and_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(small_folders, "NUM_IMAGES", 200)
    asked = [str(tmp_path), "--data=pairs", "--epochs=1", "--seeds=3", "--workers=1"]
    main(asked)
    out = capsys.readouterr().out
    assert f"| data | epochs | seeds | {WHOLE} | {HALF} |" in out
    assert "| pairs | 1 | 1 | 0." in out and " points at 1 epochs (target 2)" in out
    rows = (tmp_path / "needs-layers-pairs.jsonl").read_bytes()
    assert rows.count(b"\n") == 2
    main(asked)
    assert (tmp_path / "needs-layers-pairs.jsonl").read_bytes() == rows
    assert capsys.readouterr().out == out
