"""What another distribution adds (tests/plugin) goes the whole way, with no line of ours changed.

`sharedattn-extras` is installed beside the package by the README's test command: SkipAT's branch
under the letter S, and a squeeze-and-excitation gate shared by groups of layers under `/xse`.
"""

from __future__ import annotations

import json
import random

import pytest
import torch
from commands import document
from sharedattn_extras.skipat import SKIPAT, OutputMap
from sharedattn_extras.squeeze import SharedSqueeze

from sharedattn.backbones import build, resolve
from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.mechanisms import registry as registry_module
from sharedattn.mechanisms.interface import PartCost
from sharedattn.mechanisms.registry import registry
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement
from sharedattn.plugins import Plugin, installed
from sharedattn.search.cli.main import main
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.encoding import Encoding
from sharedattn.spaces.space import Space
from sharedattn.testing import check_mechanism, registered

BACKBONE = (
    "vit(class_token=false,depth=3,embed_dim=12,global_pool=avg,in_chans=1,num_classes=2,"
    "num_heads=2,patch_size=4)@16"
)
SPACE = f"""\
name: skipping
backbone: {BACKBONE}
order: any
stages:
  - depth: 2..3
    counts: {{V: 1..2, N: 0..1, S: 1..2}}
    xse: [0, 1]
"""
RECIPE = "epochs: 1\nbatch_size: 32\n"
SUPERNET_RECIPE = "training: {epochs: 1, batch_size: 32}\nscored_images: 50\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to search in."""
    monkeypatch.chdir(tmp_path)
    for name, text in (
        ("space.yaml", SPACE),
        ("recipe.yaml", RECIPE),
        ("supernet.yaml", SUPERNET_RECIPE),
    ):
        (tmp_path / name).write_text(text)
    return tmp_path


def test_costs_in_closed_form_by_hand():
    # D = 12, T = 16 tokens: 4 D^2 + 55 D + 3 params, T (4 D^2 + 50 D) + 3 D MACs, and no norm.
    spec = NetworkSpec.parse(f"{BACKBONE}: V1S1N1")
    cost = CostModel(spec.backbone).cost(spec.placement)
    assert cost.mechanisms["skipat"] == PartCost(4 * 144 + 55 * 12 + 3, 16 * (576 + 600) + 36)
    assert cost.params == sum(p.numel() for p in build(spec).parameters())
    plain = CostModel(spec.backbone).cost(Placement.parse("V1N2"))
    # Neither the norm before the branch, which reads no tokens of its own.
    assert cost.params - plain.params == 4 * 144 + 55 * 12 + 3
    gated = CostModel(spec.backbone).cost(Placement.parse("V3/xse2"))
    whole = CostModel(spec.backbone).cost(Placement.parse("V3"))
    assert gated.params - whole.params == 2 * (2 * 12 * 3 + 3 + 12)
    assert gated.macs - whole.macs == 3 * 2 * 12 * 3
    assert "skipat" not in whole.mechanisms and "squeeze" not in whole.mechanisms


def test_the_branch_is_its_formula():
    torch.manual_seed(0)
    module = OutputMap(6, (3, 5), 1).double()
    z_BND = torch.randn(2, 16, 6, dtype=torch.float64)
    hidden = torch.nn.functional.gelu(z_BND[:, 1:] @ module.up.weight.T + module.up.bias)
    grid = hidden.transpose(1, 2).reshape(2, 12, 3, 5)
    mixed = torch.nn.functional.gelu(module.spatial(grid)).reshape(2, 12, 15).transpose(1, 2)
    out = mixed @ module.down.weight.T + module.down.bias
    mean = torch.nn.functional.pad(out.mean(1), (1, 1))
    weight = module.channels.weight[0, 0]
    gate = torch.sigmoid(sum(weight[i] * mean[:, i : i + 6] for i in range(3)))
    expected = torch.cat([z_BND[:, :1], out * gate[:, None]], 1)
    torch.testing.assert_close(module(z_BND), expected)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("V1S1", "V1S1"),
        ("V/x0,S/x0", "V1S1/xse1"),
        ("V/x3,S/x1,S/x1", "V/x0,S/x1,S/x1"),
        ("V2S1/xse2/cb", "V2S1/xse2/cb"),
    ],
)
def test_text_and_json(text, canonical):
    placement = Placement.parse(text)
    assert str(placement) == canonical
    assert Placement.from_json(json.loads(json.dumps(placement.to_json()))) == placement
    spec = resolve(NetworkSpec(BackboneSpec.parse(BACKBONE), placement))
    assert NetworkSpec.from_json(spec.to_json()).key == spec.key


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("S1V1", "layer 1 of stage 1 is S .skip attention. and has nothing to reuse.*put V or"),
        ("V1/xse2", "/xse2.*has from 1 to 1 groups"),
        ("V/d0/x0", "says /d and /x; a layer has one gate"),
        ("V2/dia1/xse1", "says /dia and /xse; a layer has one gate"),
    ],
)
def test_placements_that_mean_nothing(text, message):
    with pytest.raises(InputError, match=message):
        Placement.parse(text)


@pytest.mark.slow
def test_a_search_on_two_workers_is_shown_exported_and_verified(folder, capsys):
    found = document(
        capsys, "search", "space.yaml", "--recipe", "recipe.yaml", "--trials", 4,
        "--confirm-seeds", 1, "--workers", 2,
    )  # fmt: skip
    placements = [member["placement"] for member in found["front"]]
    assert found["trials"]["complete"] == 4 and placements
    page = (folder / found["report"]).read_text()
    assert "#cc79a7" in page and "skipat" in page
    out = "sharedattn-out"
    exported = folder / "net"
    assert all("S" in placement for placement in placements)
    assert document(capsys, "export", found["study"], "--to", exported)
    config = (exported / "config.yaml").read_text()
    assert "sharedattn-extras" in config and "0.3.1" in config
    assert document(capsys, "verify", exported)["ok"]
    assert document(capsys, "front", found["study"], "--out", out)["front"] == found["front"]


@pytest.mark.slow
def test_a_network_with_the_kind_is_trained_exported_and_verified(folder, few_pairs, capsys):
    document(
        capsys, "train", f"{BACKBONE}: V1S1N1/xse1", "--recipe", "recipe.yaml", "--to", "net",
    )  # fmt: skip
    config = (folder / "net" / "config.yaml").read_text()
    assert "branch S" in config and "gate squeeze" in config
    assert document(capsys, "verify", "net")["ok"]


@pytest.mark.slow
@pytest.mark.usefixtures("trials_run_here", "few_pairs")
def test_a_supernet_scores_placements_of_the_kind_as_a_tree(folder, capsys):
    found = document(
        capsys, "search", "space.yaml", "--evaluator", "supernet", "--supernet-recipe",
        "supernet.yaml", "--recipe", "recipe.yaml", "--trials", 12, "--workers", 1,
        "--cpus-per-trial", 1, "--confirm-seeds", 1,
    )  # fmt: skip
    assert found["trials"]["complete"] == 12


def test_a_space_counts_and_draws_the_kind(folder):
    space = BudgetedSpace(Space.load(folder / "space.yaml"))
    members = set(space.enumerate())
    assert len(members) == space.in_budget == space.size
    assert {layer.kind for member in members for layer in member.layers} == set("VNS")
    assert any(member.layers[-1].gate == ("squeeze", 0) for member in members)
    encoding = Encoding(space)
    assert {"stage1.xse"} <= encoding.dimensions.keys()
    for member in members:
        assert encoding.repair(encoding.decode(encoding.encode(member))) == member


def test_nothing_changes_where_it_is_installed_and_not_used(monkeypatch):
    def draws():
        registry_module.clear_registry_caches()
        space = BudgetedSpace(Space.load("deit-tiny-any"))
        drawn = space.sample_many(random.Random(3), 20)
        encoding = Encoding(space)
        return [
            list(map(str, drawn)),
            [list(encoding.encode(member).items()) for member in drawn],
            space.space.to_document(),
            [resolve(NetworkSpec(space.space.backbone, member)).key for member in drawn],
        ]

    with_plugin = draws()
    assert "S" in registry().branches
    monkeypatch.setattr(registry_module, "load", lambda group: iter(()))
    monkeypatch.setattr(registry_module, "_registry", None)
    assert "S" not in registry().branches
    assert draws() == with_plugin


def test_the_plug_in_is_known_by_name_and_version():
    assert Plugin("sharedattn-extras", "0.3.1") in installed()
    assert registry().plugins["branch S"] == Plugin("sharedattn-extras", "0.3.1")


@pytest.fixture
def mechanism_from_outside(entry_point, monkeypatch):
    """Lets one mechanism stand for all plug-ins; its argument as the last of `entry_point`."""

    def install(loaded):
        entry_point("sharedattn.mechanisms", "broken", loaded)
        monkeypatch.setattr(registry_module, "_registry", None)

    return install


def test_a_plug_in_that_fails_to_import_is_named(mechanism_from_outside, capsys):
    mechanism_from_outside(ModuleNotFoundError("No module named 'nowhere'"))
    assert main(["cost", "vit: V2"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "the plug-in outside 2 cannot be imported: its entry point broken" in error
    assert "No module named 'nowhere'" in error and "uninstall outside" in error


def test_a_plug_in_that_takes_a_letter_or_a_code_is_named(mechanism_from_outside, capsys):
    class Again(type(SKIPAT)):
        letter = "V"
        name = "again"
        rank = 77

    mechanism_from_outside(Again())
    with pytest.raises(InputError, match="outside 2 takes the letter V, which branch V of"):
        registry()

    class Coded(SharedSqueeze):
        name = "coded"
        code = "keys"
        rank = 77

    mechanism_from_outside(Coded())
    assert main(["cost", "vit: V2"]) == 2
    assert "takes the code /keys, which branch L of" in " ".join(capsys.readouterr().err.split())


def test_a_cost_that_a_referee_contradicts_is_found():
    class Cheaper(type(SKIPAT)):
        letter = "M"
        name = "cheaper"
        rank = 77

        def cost(self, *arguments, **named):
            return super().cost(*arguments, **named) + PartCost(0, -1)

    with (
        registered(Cheaper()),
        pytest.raises(AssertionError, match="states macs .*, and the network that is built has"),
    ):
        check_mechanism(registry().branches["M"], backbones=("vit",))


def test_a_missing_plug_in_is_named(monkeypatch):
    monkeypatch.setattr(registry_module, "load", lambda group: iter(()))
    monkeypatch.setattr(registry_module, "_registry", None)
    with pytest.raises(InputError, match="'S' is no kind of layer here.*install that plug-in"):
        Placement.parse("V1S1")


@pytest.mark.slow
def test_doctor_holds_plug_ins_to_their_contract(folder, capsys):
    checks = {check["name"]: check for check in document(capsys, "doctor", "--plugins")["checks"]}
    assert checks["contract of branch S"]["found"] == "skip attention"
    assert checks["contract of gate squeeze"]["ok"]
