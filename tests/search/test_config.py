"""Options that mean nothing together are refused before data or machine are looked at."""

import pytest

from sharedattn.errors import InputError
from sharedattn.search.cli.main import main
from sharedattn.search.config import SearchConfig
from sharedattn.search.errors import ClusterLostError


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"num_trials": 0}, "`--trials` is a whole number from 1 to 2147483647, but got 0"),
        ({"num_workers": 0}, "`--workers` is a whole number from 1 to .*, but got 0"),
        ({"searcher": "guess"}, "`--searcher` is one of .*random.*, but got 'guess'"),
        (
            {"early_stopping": "asha"},
            "`--early-stopping` is one of mo-asha, but got 'asha'",
        ),
        ({"rungs": (1,)}, "--rungs requires --early-stopping"),
        ({"address": "127.0.0.1:6379"}, "--address requires --executor ray; leave"),
        ({"resources_per_trial": {"tpu": 1.0}}, "--resources-per-trial requires --executor ray"),
        (
            {"device": "cpu", "gpus_per_trial": 0.5},
            "--gpus-per-trial requires --device",
        ),
        (
            {"supernet_epochs": 3},
            "--supernet-epochs requires --evaluator supernet, but got --evaluator scratch",
        ),
        (
            {"evaluator": "table", "table": "t.json", "epochs": 3, "weights_dir": "w"},
            "--epochs, --weights-dir requires --evaluator scratch or supernet, but",
        ),
        ({"table": "t.json"}, "--table requires --evaluator table, but got --evaluator scratch"),
        (
            {"evaluator": "supernet", "early_stopping": "mo-asha"},
            "--evaluator supernet excludes --early-stopping, since",
        ),
        (
            {"evaluator": "supernet", "weights": "w", "front_training": "retrain"},
            "--front-training retrain excludes --weights",
        ),
        ({"val_fraction": 0.2}, "--val-fraction requires --data; leave out"),
        ({"latency_batch_size": 8}, "--latency-batch-size requires --objectives with"),
        ({"executor": "in-process", "num_workers": 2}, "one trial at a time runs in this process"),
        ({"study": "a/b"}, "`--study` is 'a/b'; give up to 200"),
    ],
)
def test_options_are_checked(options, rule):
    with pytest.raises(InputError, match=rule):
        SearchConfig.of(**options)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (("--rungs", "1;2"), "`--rungs` is '1;2'; write whole numbers between commas"),
        (
            ("--resources-per-trial", "tpu"),
            "resources are NAME=AMOUNT between commas, but got 'tpu'",
        ),
    ],
)
def test_lists_on_the_command_line(capsys, options, rule):
    assert main(["search", *options]) == 2
    assert rule in capsys.readouterr().err


def test_a_lost_cluster_is_no_bad_input(capsys, monkeypatch):
    def search(*_):
        raise ClusterLostError("the cluster went away; run the same command again")

    monkeypatch.setattr("sharedattn.search.cli.commands.search", search)
    assert main(["search"]) == 1
    assert "sharedattn: the cluster went away; run the same command" in capsys.readouterr().err
