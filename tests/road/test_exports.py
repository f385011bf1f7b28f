"""Exports where a link stands, and exports and weights that hold what is no number."""

import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tiny import BACKBONE

from sharedattn.results.artifacts.folders import folder_in_place_of
from sharedattn.results.artifacts.weights import sha256_of
from sharedattn.search.cli.main import main


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An exported all-vanilla network, trained for a moment."""
    folder = tmp_path_factory.mktemp("trained") / "export"
    with pytest.MonkeyPatch.context() as patch:
        few_images(patch)
        assert main(["train", f"{BACKBONE}: V2", "--to", str(folder), "--epochs", "1"]) == 0
    return folder


def few_images(patch) -> None:
    patch.setattr("sharedattn.data.digit_pairs.PAIRS_PER_EPOCH", 128)
    patch.setattr("sharedattn.data.digit_pairs.EVAL_PAIRS", 100)


@pytest.fixture
def copied(trained, lab, monkeypatch):
    """A copy of it in the current folder."""
    few_images(monkeypatch)
    shutil.copytree(trained, "export")
    return Path("export")


def spoil(folder: Path, value: float, *, is_recorded: bool) -> None:
    """Put what is no number into the weights, and their new sum into the config or not."""
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("weight"))
    weights[name].view(-1)[3] = value
    save_file(weights, folder / "model.safetensors")
    if is_recorded:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["weights_sha256"] = sha256_of(folder / "model.safetensors")
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


@pytest.mark.parametrize("kind", ["link", "link of a link", "relative link", "folder"])
def test_an_export_goes_where_a_link_leads_each_time(lab, monkeypatch, kind) -> None:
    few_images(monkeypatch)
    place = Path("far/away").absolute()
    place.mkdir(parents=True)
    link = Path("here")
    if kind == "link":
        link.symlink_to(place)
    elif kind == "relative link":
        link.symlink_to("far/away")
    elif kind == "link of a link":
        Path("between").symlink_to(place)
        link.symlink_to("between")
    else:
        link = place
    for seed in (0, 1, 2):
        arguments = ("train", f"{BACKBONE}: V2", "--to", link, "--epochs", 1, "--seed", seed)
        code, _, err = lab.run(*arguments)
        assert code == 0, err
        assert (f"to      {link}: the export there is replaced" in err) == (seed > 0)
        assert link.is_symlink() == (kind != "folder")
        config = yaml.safe_load((place / "config.yaml").read_text())
        assert config["evaluation"]["seed"] == seed
        assert {path.name for path in place.parent.iterdir()} == {"away"}
        assert lab.run("verify", link)[0] == 0


@pytest.mark.parametrize("target", ["nowhere", "here", "file"])
def test_a_link_to_no_folder_is_refused(lab, target) -> None:
    Path("file").write_text("mine")
    Path("here").symlink_to(target)
    said = lab.refused("train", f"{BACKBONE}: V2", "--to", "here", "--epochs", 1)
    assert "here is neither an export nor an empty folder" in said
    assert os.readlink("here") == target


def test_what_kills_left_beside_a_link_is_cleared_away(lab) -> None:
    Path("far/away").mkdir(parents=True)
    Path("here").symlink_to("far/away")
    with folder_in_place_of(Path("here")) as made:
        (made / "x").write_text("1")
        assert made.parent == Path("far").absolute()
        left = made.name
    Path("far", left.replace(str(os.getpid()), "99999999")).mkdir()
    with folder_in_place_of(Path("here")) as made:
        (made / "x").write_text("2")
    assert Path("here/x").read_text() == "2"
    assert [path.name for path in Path("far").iterdir()] == ["away"]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("is_recorded", [True, False])
def test_an_export_with_nan_is_not_verified(lab, copied, value, is_recorded) -> None:
    spoil(copied, value, is_recorded=is_recorded)
    code, out, err = lab.run("verify", copied)
    assert (code, err) == (1, "")
    assert "not verified" in out
    if is_recorded:
        assert "not finite (NaN or infinity)" in " ".join(out.split())
        assert "not finite" in lab.refused("analyze", copied, "--images", 8)


@pytest.mark.parametrize("form", ["export", "safetensors", "torch"])
def test_weights_with_nan_are_no_start(lab, copied, form) -> None:
    spoil(copied, torch.nan, is_recorded=True)
    source = copied if form == "export" else copied / "model.safetensors"
    if form == "torch":
        torch.save(load_file(source), "weights.pt")
        source = Path("weights.pt")
    said = lab.refused(
        *("search", "tiny.yaml", "--evaluator", "supernet", "--weights", source),
        *("--data", "digit-pairs"),
    )
    assert "not finite (NaN or infinity) in" in said
    assert ".weight" in said
