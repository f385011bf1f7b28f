"""proxy_ranks.py: taus equal direct computation, and which proxies are on."""

import json

import numpy as np
import proxy_ranks
import pytest
import torch
from lab import SPACE
from proxy_ranks import (
    ScoredProxy,
    TrainedPlacements,
    main,
    read_means,
    read_table,
    score_proxies,
)
from rank_correlation import Estimate, estimate_tau_difference, kendall_tau
from zero_cost_proxies import PROXIES, proxy_values

from sharedattn.backbones import resolve
from sharedattn.costs.model import CostModel
from sharedattn.data import DataConfig, open_data
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement
from sharedattn.recipe import Recipe

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
    main(list(map(str, arguments)))
    return capsys.readouterr().out


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

    monkeypatch.setattr(proxy_ranks, "PROXIES", dict.fromkeys(values(SPECS[0])))
    monkeypatch.setattr(proxy_ranks, "proxy_values", values)
    arguments = [
        *(write_table(tmp_path, truth.values()), "--space", write_space(tmp_path)),
        *("--images", 7),
    ]
    out = run(capsys, *arguments, "--json")
    document = json.loads(out)
    assert document["recommended"] == ["perfect"]
    perfect, contrary, undefined = document["proxies"]
    assert perfect["tau"] == pytest.approx({"value": 1.0, "low": 1.0, "high": 1.0})
    assert perfect["on"]
    assert perfect["over"]["macs"]["low"] > 0
    assert contrary["tau"]["value"] == pytest.approx(-1.0)
    assert not contrary["on"]
    assert undefined == {
        "name": "undefined",
        "tau": None,
        "over": {},
        "undefined": 1,
        "on": False,
    }
    assert document["placements"] == 12 and document["training_seeds"] == 1
    out = run(capsys, *arguments)
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
    read = read_table(path, BACKBONE, "digit-pairs")
    assert read.top1s == tuple(top1s)
    assert read.specs == SPECS
    assert read.init == "torch"  # from the embedded data's recipe


def test_a_folder_of_tables_gives_means_of_what_all_have(tmp_path):
    write_space(tmp_path)
    for seed, shift in enumerate((0.0, 0.5)):
        write_table(tmp_path, [i / 26 + shift for i in range(12)], f"short-warm-up-{seed}.json")
    read, num_tables = read_means(tmp_path, str(tmp_path / "space.yaml"))
    assert num_tables == 2
    assert read.top1s == pytest.approx([i / 26 + 0.25 for i in range(12)])


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="some has 9 placements; ranks take 10 or more"):
        TrainedPlacements("some", SPECS[:9], (0.5,) * 9, DATA, "timm")
    for num_images in (1, 4481):
        with pytest.raises(InputError, match=f"`--images` is {num_images}; give 2 to 4480"):
            score_proxies(trained([0.5] * 12), num_images=num_images, seed=0)
    with pytest.raises(InputError, match="no table named short-warm-up"):
        read_means(tmp_path, "digit-pairs-vit")
