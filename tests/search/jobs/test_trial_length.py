"""The length of trials that a learning curve proposes, and the command that prints it."""

import json

import pytest

from sharedattn.search.cli.main import main
from sharedattn.search.jobs.trial_length import TrialLength, trial_length

# 80 % of the way from 0.25 to 0.75 is 0.65.
CURVE = [(1, 0.3), (2, 0.64), (3, 0.66), (4, 0.64), (5, 0.7), (6, 0.74), (7, 0.745), (8, 0.75)]
NETWORK = "vit(depth=2,embed_dim=8,patch_size=8,num_heads=2,mlp_ratio=1,in_chans=1)@16: V2"


@pytest.mark.parametrize(
    ("num_images", "rises"),
    # 0.75 at the end against 0.74 after six of eight epochs: two standard errors of 0.75 are
    # 0.0274 with 1,000 images, and 0.0087 with 10,000.
    [(1000, False), (10_000, True)],
)
def test_a_trial_makes_most_of_the_gain(num_images, rises):
    length = trial_length(CURVE, guessing=0.25, num_images=num_images)
    assert length == TrialLength(epochs=3, rises=rises)
    assert ("it still rises" in length.text) is rises
    assert "--epochs 3: by then this training had made 80% of its gain" in length.text


def test_a_training_of_one_epoch_and_one_that_only_guesses():
    assert trial_length([(1, 0.5)], guessing=0.25, num_images=9) == TrialLength(
        epochs=1, rises=False
    )
    assert trial_length([(1, 0.2), (2, 0.25)], guessing=0.25, num_images=9) is None


def test_the_command_prints_the_curve_and_the_proposal(tmp_path, capsys, few_pairs):
    folder = tmp_path / "trained"
    command = ["train", NETWORK, "--data", "digit-pairs", "--epochs", "3", "--device", "cpu"]
    assert main([*command, "--to", str(folder), "--curve", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [epoch for epoch, _ in document["curve"]] == [1, 2, 3]
    assert document["curve"][-1][1] == document["top1"]
    curve = [tuple(point) for point in document["curve"]]
    length = trial_length(curve, guessing=0.5, num_images=400)
    assert document["trial_length"] == (None if length is None else length.to_json())
    # Validations between change nothing.
    assert main([*command, "--to", str(tmp_path / "plain"), "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["top1"] == document["top1"] and "curve" not in plain
    assert main([*command, "--to", str(folder), "--curve"]) == 0
    out = capsys.readouterr().out
    assert "curve   1: 0." in out and ", 3: 0." in out
