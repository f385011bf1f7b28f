"""A model of ten digits starts a search and a training on four other classes, and goes on."""

from __future__ import annotations

import shutil

import pytest
import torch
from commands import document, refusal, run
from digit_folders import BACKBONE, FOUR, TEN, write_digits
from safetensors.torch import load_file

import sharedattn as sa
from sharedattn.data import open_data
from sharedattn.results.export.folder import load_network, read_export
from sharedattn.search.config import SearchConfig
from sharedattn.search.recorded_data import open_recorded
from sharedattn.search.run import prepare
from sharedattn.training.trainer import evaluate

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("trials_run_here")]

RECIPE = """\
epochs: 5
batch_size: 32
init: torch
optimizer: muon
optimizer_options: {nesterov: true}
lr: 3e-2
warmup_epochs: 0.5
loader_workers: 0
"""
SPACE = f"""\
name: four
backbone: {BACKBONE.format(classes=1000)}
order: any
stages:
  - depth: 1..2
    counts: {{V: 0..2, N: 0..1}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data of ten and of four classes, and a model that was trained on the ten."""
    from sharedattn.search.cli.main import main

    folder = tmp_path_factory.mktemp("classes")
    write_digits(folder / "ten", TEN)
    write_digits(folder / "four", FOUR)
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "short.yaml").write_text(RECIPE.replace("epochs: 5", "epochs: 1", 1))
    (folder / "supernet.yaml").write_text(
        "training: {epochs: 1, batch_size: 32, loader_workers: 0}"
    )
    (folder / "space.yaml").write_text(SPACE)
    # Written for 1,000 classes: their number is the data's.
    network = f"{BACKBONE.format(classes=1000)}: V2"
    names = {"--data": "ten", "--recipe": "recipe.yaml", "--to": "model"}
    arguments = ["train", network, "--device", "cpu"]
    for option, name in names.items():
        arguments += [option, str(folder / name)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sharedattn.data.images._num_workers", lambda *_: 0)
        assert main(arguments) == 0
    record = read_export(folder / "model")
    assert record.spec.backbone.num_classes == 10
    assert record.evaluation.top1 > 0.8
    return folder


@pytest.fixture(autouse=True)
def loaded_here(monkeypatch):
    """No loader has processes of its own."""
    monkeypatch.setattr("sharedattn.data.images._num_workers", lambda *_: 0)


def search(folder, out, *more):
    options = {
        "data": folder / "four",
        "weights": folder / "model",
        "recipe": folder / "short.yaml",
        "supernet-recipe": folder / "supernet.yaml",
        "confirm-seeds": 1,
        "workers": 1,
        "cpus-per-trial": 1,
        "device": "cpu",
        "out": out,
    }
    given = [part for name, value in options.items() for part in (f"--{name}", value)]
    return ["search", folder / "space.yaml", "--evaluator", "supernet", *given, *more]


def test_a_search_starts_with_a_head_of_its_own_classes(folder, capsys, tmp_path):
    code, out, err = run(capsys, *search(folder, tmp_path, "--dry-run"))
    assert code == 0, err
    said = "the head of 10 classes is replaced by one of 4, fitted to 700 training images"
    assert f"weights {folder / 'model'}: {said}" in err
    # A share is of the backbone with the data's four classes.
    macs = sa.cost(f"{BACKBONE.format(classes=4)}: V2").macs
    budget = document(capsys, *search(folder, tmp_path, "--dry-run", "--max-macs", "90%"))["plan"][
        "budget"
    ]
    assert budget == [{"bound": "max_macs", "share": "90%", "of": macs, "value": 9 * macs // 10}]
    message = refusal(capsys, *search(folder, tmp_path, "--head", "keep"))
    assert "which has 10 classes, but four has 4; leave --head out to replace it" in message

    found = document(capsys, *search(folder, tmp_path))
    # The majority of four classes is 41 % of the images.
    assert found["start"]["top1"] > 0.85
    assert found["plan"]["weights"]["head"] == {
        "trained_classes": 10,
        "num_classes": 4,
        "num_images": 700,
        "ridge": 0.01,
    }
    study = found["study"]
    code, out, err = run(capsys, "front", study, "--out", tmp_path)
    assert "the start, with a head fitted to 700 training images: 0." in out
    record = read_export(tmp_path / study / "knee")
    assert record.spec.backbone.num_classes == 4
    assert record.start.head_images == 700
    card = (tmp_path / study / "knee" / "README.md").read_text()
    assert "started from, with a head fitted to 700 training images |" in card
    assert document(capsys, "verify", tmp_path / study / "knee")["ok"]


def test_the_start_is_equal_wherever_it_is_made(folder):
    options = {
        "space": str(folder / "space.yaml"),
        "evaluator": "supernet",
        "data": str(folder / "four"),
        "weights": str(folder / "model"),
        "supernet_recipe": str(folder / "supernet.yaml"),
        "recipe": str(folder / "short.yaml"),
        "device": "cpu",
        "num_workers": 1,
    }
    first, again, other, kept = (
        prepare(SearchConfig.of(**{**options, **changes}), remember=False)
        for changes in ({}, {"head": "auto"}, {"seed": 5}, {"data": str(folder / "ten")})
    )
    assert first.record.fingerprint_document == again.record.fingerprint_document
    assert kept.shared.supernet.head is None
    replaced = prepare(
        SearchConfig.of(**{**options, "data": str(folder / "ten"), "head": "replace"}),
        remember=False,
    )
    keys = [p.shared.supernet_identity.key for p in (first, other, kept, replaced)]
    assert len(set(keys)) == 4
    assert kept.record.fingerprint_document != replaced.record.fingerprint_document

    source = open_data(first.data)
    states = [
        made.state_dict()
        for supernet in (first.shared.supernet, again.shared.supernet)
        for made in (supernet.pretrained_network(source), supernet.started_network(source))
    ]
    for state in states[1:]:
        assert torch.equal(state["head.weight"], states[0]["head.weight"])
        assert torch.equal(state["head.bias"], states[0]["head.bias"])


def test_a_training_starts_with_a_new_head_as_a_search_does(folder, capsys, tmp_path):
    arguments = ["train", f"{BACKBONE.format(classes=1000)}: V2", "--data", folder / "four"]
    arguments += ["--recipe", folder / "short.yaml", "--device", "cpu", "--to", tmp_path / "to"]
    weights = ["--weights", folder / "model" / "model.safetensors"]
    message = refusal(capsys, *arguments, *weights, "--head", "keep")
    assert "which has 10 classes, but four has 4" in message
    assert "--head requires --weights" in refusal(capsys, *arguments, "--head", "replace")
    found = document(capsys, *arguments, *weights)
    assert found["top1_before"] > 0.85
    assert found["plan"]["weights"]["text"] == (
        "the head of 10 classes is replaced by one of 4, fitted to 700 training images"
    )
    record = read_export(tmp_path / "to")
    assert record.origin.to_json() == {
        "source": str(weights[1]),
        "trained_classes": 10,
        "head_images": 700,
    }
    assert document(capsys, "verify", tmp_path / "to")["ok"]
    card = (tmp_path / "to" / "README.md").read_text()
    assert "of 10 classes, with a new head fitted to 700 training images (sha256 " in card
    message = refusal(
        capsys, "train", tmp_path / "to", *weights, "--to", tmp_path / "again", "--device", "cpu"
    )
    assert "is an export with weights of its own" in message


def test_going_on_from_an_export(folder, capsys, tmp_path):
    shutil.copytree(folder / "model", tmp_path / "model")
    source = tmp_path / "model"
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    record = read_export(source)
    arguments = ["train", source, "--more", 2, "--recipe", folder / "recipe.yaml"]
    arguments += ["--device", "cpu"]
    for same in (source, f"{source}/.", tmp_path / "model" / ".." / "model"):
        message = refusal(capsys, *arguments, "--to", same)
        assert "is the export that --more goes on from, which is not overwritten" in message
    found = document(capsys, *arguments, "--out", tmp_path / "more")
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before
    assert found["top1_before"] == record.evaluation.top1
    assert found["plan"]["weights"] == {
        "source": str(source),
        "epochs": 5,
        "text": "gone on from, after 5 epochs",
    }
    more = read_export(tmp_path / "more")
    assert more.spec == record.spec
    assert more.starts_from == record.evaluation.weights_sha256
    assert more.origin.to_json() == {"source": str(source), "epochs": 5}
    assert more.evaluation.identity.fidelity.epochs == 2
    assert (more.evaluation.top1, more.test_top1) == (found["top1"], found["test_top1"])
    data = open_recorded(more.data, "the export")
    network = load_network(tmp_path / "more")
    assert evaluate(network, data, "test", batch_size=32).quality == found["test_top1"]
    assert document(capsys, "verify", tmp_path / "more")["ok"]
    assert found["warnings"] == []
    # One that forgets what was learnt says so.
    (tmp_path / "steep.yaml").write_text("epochs: 1\nbatch_size: 32\nlr: 0.3\n")
    steep = ["train", source, "--more", 1, "--recipe", tmp_path / "steep.yaml", "--device", "cpu"]
    worse = document(capsys, *steep, "--to", tmp_path / "worse")
    assert worse["top1"] < worse["top1_before"] - 0.2
    [warning] = [text for text in worse["warnings"] if "made the network worse" in text]
    assert f"top1 {worse['top1_before']:.3f} before it, {worse['top1']:.3f} after" in warning
    # A link of a chain knows all epochs before it.
    options = ["--recipe", folder / "short.yaml", "--device", "cpu", "--dry-run"]
    rest = document(
        capsys, "train", tmp_path / "more", "--more", 1, *options, "--to", tmp_path / "to"
    )
    assert rest["plan"]["weights"]["epochs"] == 7

    code, out, err = run(capsys, *arguments, "--to", tmp_path / "twin")
    assert code == 0, err
    first, twin = (load_file(tmp_path / n / "model.safetensors") for n in ("more", "twin"))
    assert all(torch.equal(first[name], twin[name]) for name in first)
    lines = out.splitlines()
    assert lines[1].startswith(f"top1 {found['top1']:.4f} on 198 validation images")
    assert lines[2] == f"top1 {found['top1_before']:.4f} on them before this training"
    assert lines[3] == f"top1 {found['test_top1']:.4f} on 99 test images"


def test_what_cannot_be_gone_on_from(folder, capsys, tmp_path):
    to = ["--device", "cpu", "--to", tmp_path / "to"]
    network = f"{BACKBONE.format(classes=10)}: V2"
    assert "there is no 'vit(" in refusal(capsys, "train", network, "--more", 2, *to)
    model = folder / "model"
    assert "`--more` is a whole number from 1" in refusal(capsys, "train", model, "--more", 0, *to)
    assert "excludes --epochs" in refusal(capsys, "train", model, "--more", 2, "--epochs", 3, *to)
    assert "--more in that of --weights" in refusal(
        capsys, "train", model, "--more", 2, "--weights", "timm", *to
    )
    shutil.copytree(model, tmp_path / "bare")
    (tmp_path / "bare" / "model.safetensors").unlink()
    assert "model.safetensors" in refusal(capsys, "train", tmp_path / "bare", "--more", 2, *to)
    assert not (tmp_path / "to").exists()
