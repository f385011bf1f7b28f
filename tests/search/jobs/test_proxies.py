"""`sharedattn proxies`: taus as direct computation finds them, and who is on."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from lab import SPACE, Lab

from sharedattn.backbones import resolve
from sharedattn.costs.model import CostModel
from sharedattn.data import DataConfig, open_data
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement
from sharedattn.proxies import PROXIES, proxy_values
from sharedattn.recipe import Recipe
from sharedattn.results.database.store import Store
from sharedattn.results.front.rank_correlation import (
    Estimate,
    estimate_tau_difference,
    kendall_tau,
)
from sharedattn.search.cli.main import main
from sharedattn.search.jobs import proxies as proxy_scoring
from sharedattn.search.jobs.proxies import (
    ScoredProxy,
    TrainedPlacements,
    score_proxies,
    trained_of_study,
    trained_of_table,
)
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.space import Space

TEXTS = (
    *("V1", "V2", "V3", "V4", "V1L1", "N1V1", "V2/cb", "E1V1/s5", "E2/s7/dia1", "N1", "V1L2/cb"),
    "E1/s5",
)
BACKBONE = BackboneSpec.parse(SPACE["backbone"])
SPECS = tuple(resolve(NetworkSpec(BACKBONE, Placement.parse(text))) for text in TEXTS)
DATA = open_data(DataConfig(name="digit-pairs"))


def trained(top1s):
    return TrainedPlacements("some", SPECS, tuple(top1s), DATA, "timm")


def write_table(folder, top1s, name="table.json"):
    path = folder / name
    path.write_text(json.dumps(dict(zip(TEXTS, top1s, strict=True))))
    return path


def write_space(folder):
    path = folder / "space.yaml"
    path.write_text(json.dumps(SPACE))  # JSON is YAML
    return path


def run(capsys, *arguments):
    code = main(["proxies", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_taus_are_those_of_values_computed_one_by_one():
    top1s = np.random.default_rng(0).random(len(TEXTS)).tolist()
    scored = score_proxies(trained(top1s), num_images=7, seed=5)
    assert [proxy.name for proxy in scored] == ["params", "macs", *PROXIES]
    [images, labels] = next(
        DATA.train_batches(
            Recipe(epochs=1, batch_size=7), seed=5, epoch=0, device=torch.device("cpu")
        )
    )
    macs = [float(CostModel(BACKBONE).cost(spec.placement).macs) for spec in SPECS]
    values = [proxy_values(spec, images, labels, seed=5) for spec in SPECS]
    for proxy in scored[2:]:
        own = [value[proxy.name] for value in values]
        assert proxy.tau.value == kendall_tau(own, top1s), proxy.name
        expected = estimate_tau_difference(own, macs, top1s, np.random.default_rng(5))
        assert proxy.over["macs"] == expected, proxy.name
    assert scored[1].tau.value == kendall_tau(macs, top1s)
    assert not scored[0].is_on and not scored[1].is_on


def test_what_ranks_as_training_does_is_on_and_the_rest_off(monkeypatch, tmp_path, capsys):
    truth = {spec: (7 * i % 12) / 13 for i, spec in enumerate(SPECS)}

    def values(spec, *_, **__):
        return {
            "perfect": truth[spec],
            "contrary": -truth[spec],
            "undefined": float("nan") if spec == SPECS[3] else 1.0,
        }

    monkeypatch.setattr(proxy_scoring, "PROXIES", dict.fromkeys(values(SPECS[0])))
    monkeypatch.setattr(proxy_scoring, "proxy_values", values)
    arguments = [
        *(write_table(tmp_path, truth.values()), "--space", write_space(tmp_path)),
        *("--images", 7),
    ]
    code, out, err = run(capsys, *arguments, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["recommended"] == ["perfect"]
    perfect, contrary, undefined = document["proxies"]
    assert perfect["tau"] == {"value": 1.0, "low": 1.0, "high": 1.0} and perfect["on"]
    assert perfect["over"]["macs"]["low"] > 0
    assert contrary["tau"]["value"] == -1.0 and not contrary["on"]
    assert undefined == {
        "name": "undefined",
        "tau": None,
        "over": {},
        "undefined": 1,
        "on": False,
    }
    assert document["placements"] == 12 and document["source"] == "table"
    code, out, err = run(capsys, *arguments)
    assert code == 0, err
    assert "more than the interval: perfect" in out
    assert "off: undefined for 1" in out


def test_better_by_less_than_the_interval_is_off():
    clear, unclear = Estimate(0.3, 0.1, 0.5), Estimate(0.3, -0.1, 0.7)
    tau = Estimate(0.6, 0.4, 0.8)
    assert ScoredProxy("some", tau, {"params": clear, "macs": clear}).is_on
    assert not ScoredProxy("some", tau, {"params": clear, "macs": unclear}).is_on
    assert not ScoredProxy("some", tau, {"params": unclear, "macs": clear}).is_on


def test_a_table_of_curves_counts_their_last_epoch(tmp_path):
    top1s = [i / 13 for i in range(12)]
    path = write_table(tmp_path, [[0.9 - top1, top1] for top1 in top1s])
    read = trained_of_table(path, BACKBONE, "digit-pairs", None)
    assert read.top1s == tuple(top1s)
    assert read.specs == SPECS
    assert read.init == "torch"  # of the recipe of the embedded data


@pytest.fixture
def lab(tmp_path):
    class OfData(Lab):
        def record(self, *arguments):
            return replace(
                super().record(*arguments),
                data={"config": DataConfig(name="digit-pairs").to_json()},
                recipe=Recipe(epochs=1, init="torch").to_json(),
            )

    return OfData(tmp_path, BudgetedSpace(Space.from_document(SPACE)))


def test_a_study_gives_its_complete_placements(lab):
    summary = lab.run(num_trials=13)
    with Store.open(lab.url) as store:
        read = trained_of_study(store, store.study("study"))
    assert len(read.specs) == len(summary.candidates) >= 10
    assert [str(spec.placement) for spec in read.specs] == [
        candidate.placement for candidate in summary.candidates
    ]
    assert read.top1s == tuple(candidate.top1 for candidate in summary.candidates)
    assert (read.init, read.data.name, read.source) == ("torch", "digit-pairs", "study")


def test_the_command_takes_the_latest_study(lab, capsys):
    lab.run(num_trials=13)
    code, out, err = run(capsys, "--storage", lab.url, "--images", 7, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["source"] == "study"
    assert [proxy["name"] for proxy in document["proxies"]] == list(PROXIES)
    assert [bar["name"] for bar in document["bars"]] == ["params", "macs"]


def test_bad_input(lab, tmp_path, capsys):
    lab.run(num_trials=9)
    with pytest.raises(InputError, match="10 trained placements or more.*study has [1-9];"):
        with Store.open(lab.url) as store:
            trained_of_study(store, store.study("study"))
    Lab(tmp_path, lab.space).run(name="read", num_trials=3)
    with pytest.raises(InputError, match="'read' read them from a table; give the table itself"):
        with Store.open(lab.url) as store:
            trained_of_study(store, store.study("read"))
    for num_images in (1, 4481):
        with pytest.raises(InputError, match=f"got {num_images} where digit-pairs has 4480"):
            score_proxies(trained([0.5] * 12), num_images=num_images, seed=0)
    table = write_table(tmp_path, [0.5] * 12)
    for arguments, message in (
        (("--space", "digit-pairs-vit", "--storage", lab.url), "`--space is of a table`"),
        (("--data-root", ".", "study", "--storage", lab.url), "`--data-root is of a table`"),
        ((tmp_path / "none.json",), "is a JSON object of placement: top1"),
        ((table, "--space", "deit-tiny"), "16x16 pixels and 1 channel"),
    ):
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (2, "") and message in err, err
