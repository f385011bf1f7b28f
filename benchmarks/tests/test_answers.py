"""The comparison with what a person would do by hand: its arithmetic, and the plain trainings."""

import json
import math
from dataclasses import asdict, replace

import pytest
from answers import (
    Answer,
    Bench,
    ByHand,
    Row,
    differences,
    interval,
    main,
    read_rows,
)
from data_makers import make
from small_folders import backbone_of

from sharedattn.costs.model import CostModel
from sharedattn.placement import Placement
from sharedattn.search.cli.main import main as sharedattn

ANSWER = Answer(placement="V6", macs=100, top1=0.5, test_top1=0.5, cpu_s=1.0, how="made up")


def row(seed, ours, by_hand, same):
    return Row(
        data="pairs",
        seed=seed,
        blocks=3,
        start=ANSWER,
        ours=replace(ANSWER, test_top1=ours),
        by_hand=replace(ANSWER, test_top1=by_hand),
        same=replace(ANSWER, test_top1=same),
    )


ROWS = [row(0, 0.71, 0.70, 0.70), row(1, 0.72, 0.70, 0.73), row(2, 0.73, 0.70, 0.70)]


def test_differences_are_in_points_and_paired_by_seed():
    assert differences(ROWS, "by_hand") == pytest.approx([1.0, 2.0, 3.0])
    assert differences(ROWS, "same") == pytest.approx([1.0, -1.0, 3.0])
    # 2 with a standard error of 1 / sqrt(3), times Student's 4.3027 for two degrees of freedom.
    assert interval([1.0, 2.0, 3.0]) == pytest.approx(4.302653 / 3**0.5, abs=1e-5)
    assert math.isnan(interval([1.0]))


def test_finished_rows_are_printed_and_not_made_again(tmp_path, capsys):
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(asdict(row)) + "\n" for row in ROWS))
    assert read_rows(path) == ROWS
    main([str(tmp_path), "--data=pairs", "--blocks=3", "--seeds=0,1,2"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[3] == (
        "| `pairs`, of 3 layers | 1 | 0.500 | `V6` 0.720 | `V6` 0.700 | 0.730 | 1 |"
    )
    assert lines[6:8] == [
        "over the same network by hand: -1.0 to +3.0 points; its CPU time 100 to 100 % of the "
        "search's",
        "a row, without its trained model: 0 to 0 CPU minutes",
    ]
    assert lines[-1] == (
        "| pairs | of 3 blocks | 3 | 0.500 | 0.720 | 0.700 | +2.0 ± 2.5 | +1.0 ± 5.0 | 1 |"
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a small data set, and a model trained on it for a moment."""
    folder = tmp_path_factory.mktemp("answers")
    make("pairs", folder / "data" / "pairs", 200, 24)
    network = "vit(class_token=false,depth=6,embed_dim=32,global_pool=avg,mlp_ratio=2,"
    network += "num_classes=10,num_heads=4,patch_size=6)@24: V6"
    images = str(folder / "data" / "pairs")
    asked = ["train", network, "--data", images, "--epochs", "1", "--device", "cpu"]
    assert sharedattn([*asked, "--to", str(folder / "models" / "pairs-0")]) == 0
    return folder


def test_cuts_by_hand_are_trained_from_the_models_weights(trained):
    bench = Bench(trained)
    model, start = bench._start("pairs", 0)
    assert (start.placement, start.cpu_s) == ("V6", 0.0)
    hand = ByHand(bench._source("pairs"), model, 0)
    most = CostModel(backbone_of("pairs")).totals(Placement.parse("V4")).macs
    found = hand.cut(bench._space("pairs"), most, 0.0)
    depth = sum(str(one).startswith("V") for one in Placement.parse(found.placement).stages[0])
    assert depth == 4 and found.macs == most
    assert found.how.split(",")[0] in ("first", "even") and " 1 epochs at " in found.how
    same = hand.same("V2N1X2V1", 0.0)
    assert same.placement == "V2N1X2V1" and 0 <= same.test_top1 <= 1
    # The same start and seed give the same training.
    assert hand.same("V2N1X2V1", 0.0).test_top1 == same.test_top1
