"""The trained model that a search starts from is measured as it came, and stands first."""

import json

import pytest
import torch
from colour_model import PIXELS, arguments, colour_model, loader, shown_by, trained, write_inputs
from safetensors.torch import save_file

from sharedattn.results.database.store import Store
from sharedattn.results.export.folder import read_export
from sharedattn.results.records import START_NOTE
from sharedattn.search.config import SearchConfig
from sharedattn.search.data_plan import DataOptions
from sharedattn.search.evaluators.supernet import SupernetEvaluator
from sharedattn.search.run import prepare

# timm 1.0.31 leaves closing an image's file to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

SPACE = """\
name: colours
backbone: vit(depth=2,embed_dim=12,mlp_ratio=1,num_heads=2,patch_size=8)@16
order: any
stages: [{depth: 1..2, counts: {V: 0..2, N: 0..1}}]
"""


@pytest.fixture
def model():
    """A model of timm's, not trained yet."""
    return colour_model(depth=2)


@pytest.fixture
def pixels(here):
    """The space, the folders, and the pixels that a search shows."""
    return write_inputs(here, SPACE)


def test_the_start_is_what_timm_measures_and_stands_first_everywhere(
    here, run, pixels, model, in_this_process, monkeypatch
):
    trained(model, here / "data" / "train", pixels)
    save_file(model.state_dict(), here / "model.safetensors")
    accuracy = {}
    for split in ("val", "test"):
        theirs, labels = shown_by(model, loader(here / "data" / split, pixels))
        accuracy[split] = (theirs == labels).float().mean(dtype=torch.float64).item()
    assert accuracy == {"val": pytest.approx(18 / 24), "test": pytest.approx(27 / 30)}

    # Image for image, the network that is measured answers as timm's.
    config = SearchConfig.of(
        space="space.yaml",
        evaluator="supernet",
        data="data",
        weights="model.safetensors",
        recipe="recipe.yaml",
        supernet_recipe="supernet.yaml",
        data_options=DataOptions(pixels=PIXELS),
        device="cpu",
        num_workers=1,
    )
    shared = prepare(config, remember=False).shared
    ours = shared.supernet.pretrained_network(shared.scratch.opened()).eval()
    theirs, labels = shown_by(model, loader(here / "data" / "val", pixels))
    batches = shared.scratch.opened().eval_batches(
        "validation", batch_size=7, device=torch.device("cpu")
    )
    found, own = shown_by(ours, batches)
    assert torch.equal(own, labels)
    assert torch.equal(found, theirs)

    code, out, err = run(*arguments(), "--json")
    assert code == 0, err
    document = json.loads(out)
    params = sum(parameter.numel() for parameter in model.parameters())
    [whole] = [m for m in document["inherited"]["front"] if m["placement"] == "V2"] or [None]
    start = document["start"]
    assert start == {
        "top1": accuracy["val"],
        "test_top1": accuracy["test"],
        "macs": start["macs"],
        "params": params,
    }
    assert whole is None or whole["macs"] == start["macs"]
    line = "the start, as it came: 0.750 on validation"
    # Before the training, without the test split.
    assert f"start   {line}, {start['macs'] / 1000:.1f} k MACs" in err

    # Neither the same command nor any other measures again.
    def fail(*_):
        raise AssertionError("the start is measured once")

    monkeypatch.setattr(SupernetEvaluator, "_evaluate_start", fail)
    code, out, err = run(*arguments())
    assert code == 0, err
    assert f"start   {line}, 0.900 on test" in err
    code, out, _ = run("front", "--out", "out")
    said = out.splitlines()
    assert said[1].startswith(f"{line}, 0.900 on test, ")
    assert json.loads(run("front", "--out", "out", "--json").out)["start"] == start
    code, out, _ = run("report", "--out", "out")
    page = (here / "out" / document["study"] / "report.html").read_text(encoding="utf-8")
    assert '"start":{"top1":0.75,"test_top1":0.9,' in page
    assert "The start, as it came: 0.750 on validation, 0.900 on test" in page
    record = read_export(here / "out" / document["study"] / "knee")
    assert (record.start.top1, record.start.test_top1) == (0.75, 0.9)
    assert (record.start.num_images, record.start.num_test_images) == (24, 30)
    card = (here / "out" / document["study"] / "knee" / "README.md").read_text(encoding="utf-8")
    assert "as it came | 0.7500 on 24 validation images, 0.9000 on 30 test images" in card
    assert json.loads(run("verify", document["exported"], "--json").out)["ok"] is True


def test_a_start_at_chance_is_said_before_the_training(
    here, run, pixels, model, in_this_process, monkeypatch
):
    trained(model, here / "data" / "train", pixels)
    # The classes in another order: all that can be told is answered wrongly.
    with torch.no_grad():
        model.head.weight.copy_(model.head.weight.roll(1, 0))
        model.head.bias.copy_(model.head.bias.roll(1, 0))
    save_file(model.state_dict(), here / "model.safetensors")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(SupernetEvaluator, "_train", stop)
    code, _, err = run(*arguments())
    assert code != 0
    assert (
        "warning: the start is not above guessing: its top-1 is 0.250; guessing gets 0.333" in err
    )
    for what in ("other pixels (--pixels,", "another order (--classes)", "head may be untrained"):
        assert what in err
    # It is known by then, the test split is not opened, and it is not measured again.
    with Store.open(f"sqlite:///{here / 'out' / 'sharedattn.db'}") as store:
        [study] = store.studies()
        note = store.note(study, START_NOTE)
    assert (note["top1"], note["test_top1"], note["num_images"]) == (0.25, None, 24)
    monkeypatch.setattr(SupernetEvaluator, "_evaluate_start", stop)
    code, out, _ = run("front", "--out", "out", "--json")
    found = json.loads(out)
    assert found["start"]["test_top1"] is None
    assert found["warnings"][0].startswith("the start is not above guessing")


def test_without_weights_there_is_no_start(here, run, tiny, few_pairs, trials_run_here):
    search = ["search", tiny, "--epochs", 1, "--trials", 1, "--confirm-seeds", 1, "--workers", 1]
    code, out, err = run(*search, "--device", "cpu", "--out", "out", "--json")
    assert code == 0, err
    assert json.loads(out)["start"] is None
    assert "as it came" not in err
