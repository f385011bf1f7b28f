"""Networks of all tasks are searched by the quality of the task, under its own name."""

import json

import pytest
from scenes import write_boxes

from sharedattn.objectives import parse_objectives
from sharedattn.search.cli.main import main
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.space import Space
from sharedattn.tasks import QUALITIES

SPACE = """\
name: {task}
backbone: pvt_v2_b0(head={head},num_classes=3)@64x96
order: any
stages:
  - {{depth: 1..2, counts: {{V: 0..2, N: 0..1}}}}
  - {{depth: 1..1, counts: {{V: 1..1}}}}
  - {{depth: 1..1, counts: {{V: 1..1}}}}
  - {{depth: 1..1, counts: {{V: 1..1}}}}
"""
HEADS = {"segment": "semantic_fpn", "detect": "retinanet"}


@pytest.fixture(params=HEADS)
def searched(request, tmp_path):
    """The task, and the arguments of a search through a table of 5 placements."""
    task = request.param
    space = tmp_path / "space.yaml"
    space.write_text(SPACE.format(task=task, head=HEADS[task]))
    members = BudgetedSpace(Space.load(str(space))).enumerate()
    # A vanilla layer more costs more, and is better.
    table = {
        str(member): 0.1 * (1 + sum(layer.kind == "V" for layer in member.layers))
        for member in members
    }
    (tmp_path / "table.json").write_text(json.dumps(table))
    asked = f"search {space} --evaluator table --table {tmp_path / 'table.json'} --trials 5"
    return task, [*asked.split(), "--workers", "1", "--confirm-seeds", "1"]


def test_a_search_says_its_quality_by_name(searched, tmp_path, capsys):
    task, arguments = searched
    quality = QUALITIES[task]
    out = tmp_path / "out"
    assert main([*arguments, "--out", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["objectives"] == [quality, "macs"]
    assert document["reference_point"][quality] == 0.0
    best = document["front"][-1]
    assert (best["placement"], best[quality]) == ("V2 | V1 | V1 | V1", pytest.approx(0.6))
    assert best[f"{quality}_by_seed"] == {"0": best[quality]}
    assert not [name for member in document["front"] for name in member if "top1" in name]
    # Nothing is said of guessing, which is a classifier's.
    assert document["warnings"] == []
    report = (out / document["study"] / "report.html").read_text()
    label = parse_objectives([quality, "macs"])[0].label
    assert f"best {label}, " in report and f'"quality":"{label}"' in report.replace(": ", ":")
    assert "top-1" not in report
    assert main(["front", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"  {quality} " in printed and "top1" not in printed


UNETS = """\
name: unets
backbone: unet2d(in_chans=1,head_dim=4,layers_per_block=1,norm_groups=4,widths=4-8)@16
order: any
stages:
  - {depth: 1, counts: {V: 0..1, N: 0..1}}
  - {depth: 1, counts: {V: 0..1, N: 0..1}}
  - {depth: 1, counts: {N: 1}}
  - {depth: 2, counts: {N: 2}}
  - {depth: 2, counts: {N: 2}}
"""


def test_generators_are_searched_by_r2_and_draw_digits_in_the_report(tmp_path, capsys):
    pytest.importorskip("diffusers")
    space, out = tmp_path / "space.yaml", tmp_path / "out"
    space.write_text(UNETS)
    # Without --data, these backbones are trained on the embedded digits.
    asked = f"search {space} --trials 2 --epochs 1 --workers 1 --confirm-seeds 1 --searcher random"
    assert main([*asked.split(), "--out", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["objectives"] == ["denoise_r2", "macs"]
    assert document["reference_point"]["denoise_r2"] == 0.0
    assert all(0.0 < one["denoise_r2"] < 1.0 for one in document["front"])
    assert document["warnings"] == []
    page = (out / document["study"] / "report.html").read_text()
    assert "What the knee draws" in page and "between halves of the real ones" in page
    assert "best R² of the noise, " in page and "top-1" not in page
    assert main(["verify", document["exported"], "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert [c["ok"] for c in checks if c["name"].startswith("R² of the noise")] == [True, True]


def test_a_supernet_of_generators_is_refused(tmp_path, capsys):
    pytest.importorskip("diffusers")
    space = tmp_path / "space.yaml"
    space.write_text(UNETS)
    arguments = ["search", str(space), "--evaluator", "supernet", "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "`--evaluator` supernet scores placements by shared weights" in message


def test_another_tasks_quality_is_refused(searched, capsys):
    task, arguments = searched
    assert main([*arguments, "--objectives", "top1,macs"]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert f"networks that {task} are measured by {QUALITIES[task]}" in message


def test_a_function_returns_the_tasks_quality(tmp_path):
    import sharedattn as sa

    space = tmp_path / "space.yaml"
    space.write_text(SPACE.format(task="segment", head="semantic_fpn"))

    def by_depth(placement):
        return {"miou": 0.1 * len(placement.layers)}

    study = sa.Study(sa.Space.load(space), by_depth, out=tmp_path / "out")
    study.run(trials=3, workers=1, progress=False)
    document = study.front().to_document()
    assert document["objectives"] == ["miou", "macs"]
    assert max(one["miou"] for one in document["front"]) == pytest.approx(0.5)

    def by_accuracy(placement):
        return {"top1": 0.5}

    other = sa.Study(sa.Space.load(space), by_accuracy, out=tmp_path / "other")
    other.run(trials=1, workers=1, progress=False)
    assert '{"miou": 0.7}' in other.front().to_document()["failures"][0]["reason"]


def test_a_preset_is_searched_for_another_task_and_image_size(capsys, tmp_path):
    space = Space.load("pvt-tiny@64x96", task="detect")
    assert str(space.backbone) == "pvt_tiny(head=retinanet)@64x96"
    assert Space.load("pvt-tiny@224") == Space.load("pvt-tiny")
    assert space.for_task("detect") == space
    assert main(["space", "pvt-tiny@64x96", "--task", "segment", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["backbone"] == "pvt_tiny(head=semantic_fpn)@64x96"
    write_boxes(tmp_path / "made")
    asked = f"search pvt-tiny@64x96 --task detect --data {tmp_path / 'made'} --dry-run --json"
    assert main(asked.split()) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["study"].startswith("pvt-tiny-")
    assert "64 x 96, both edges resized" in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("space pvt-tiny@wide", "'wide'"),
        ("space pvt-tiny@7", "leaves no patch"),
        ("space pvt-tini@64", "did you mean pvt-tiny"),
        ("space deit-tiny --task detect", "RetinaNet needs 3 feature maps"),
        ("space digits-unet --task segment", "takes no other head"),
        ("search pvt-tiny --task denoise", "`head` is noise, which is part of unet2d"),
    ],
)
def test_presets_that_do_not_serve_a_task(capsys, arguments, message):
    if "unet" in arguments:
        pytest.importorskip("diffusers")
    assert main(arguments.split()) == 2
    assert message in " ".join(capsys.readouterr().err.split())
