"""What one network does on images, against the same computed directly from its maps and gates."""

import itertools
import math

import numpy as np
import pytest
import torch

from sharedattn.backbones import describe, resolve
from sharedattn.mechanisms.interface import MapShape
from sharedattn.mechanisms.less import diagonality
from sharedattn.placement import Envelope, MechanismOptions, NetworkSpec
from sharedattn.results.analysis import random_network
from sharedattn.results.analysis.measuring import (
    MAX_MAP_BYTES,
    Mean,
    MeanAccumulator,
    batch_size_for,
    comparable_pairs,
    consecutive_pairs,
    gate_pairs,
    layers_of,
    measure,
    share_unit,
)

EVERYTHING = "V/d0,L/d0/cb,E/s7/d1,N/d1/cb,V/cb"


def parts(spec, seed=0):
    layers = layers_of(describe(spec.backbone), spec.placement, spec.backbone.options)
    network = random_network(spec.backbone, Envelope.of(spec.placement), "torch", seed)
    return network, layers


def labels(pairs):
    return [(one.label, other.label) for one, other in pairs]


def test_pairs_by_hand(spec_of):
    layers = parts(spec_of("V1N1L1E1V1/dia2"))[1]
    assert [layer.label for layer in layers] == ["1.1", "1.2", "1.3", "1.4", "1.5"]
    assert labels(comparable_pairs(layers)) == [("1.1", "1.3"), ("1.1", "1.5"), ("1.3", "1.5")]
    assert labels(consecutive_pairs(layers)) == [("1.1", "1.3"), ("1.3", "1.5")]
    assert len(list(gate_pairs(layers))) == 10
    shared = [pair for pair in gate_pairs(layers) if share_unit(*pair)]
    assert labels(shared) == [("1.1", "1.2"), ("1.1", "1.3"), ("1.2", "1.3"), ("1.4", "1.5")]


def test_layers_of_unequal_shift_or_stage_are_not_compared():
    spec = resolve(
        NetworkSpec.parse(
            "swin(depths=4-2,embed_dim=12,num_heads=2-2,patch_size=2,window_size=2-2,in_chans=2,"
            "num_classes=3,handover=previous)@16: V2L2/dia1 | V2/dia1"
        )
    )
    equal_shift = describe(NetworkSpec.parse(str(spec).replace("handover=previous,", "")).backbone)
    layers = layers_of(equal_shift, spec.placement, spec.backbone.options)
    assert labels(comparable_pairs(layers)) == [("1.1", "1.3"), ("1.2", "1.4")]
    assert labels(consecutive_pairs(layers)) == [("1.1", "1.3"), ("1.2", "1.4")]
    assert ("1.4", "2.1") not in labels(gate_pairs(layers))


def test_memory_of_maps_bounds_a_batch(spec_of, monkeypatch):
    layers = parts(spec_of("V1L1E2N1/s7"))[1]
    # 2 heads of 10 x 10 twice, 10 tokens by 7 slots twice.
    assert [layer.maps and layer.maps.num_elements for layer in layers] == [200, 200, 70, 70, None]
    mea = layers_of(
        describe(spec_of("V1").backbone),
        spec_of("E1/s7/mea").placement,
        MechanismOptions(external_expansion=3),
    )
    assert mea[0].maps == MapShape(3 * 2, 10, 7)
    assert batch_size_for(layers, 64) == 64
    assert batch_size_for(layers, 10**9) == MAX_MAP_BYTES // (4 * 540)
    monkeypatch.setattr("sharedattn.results.analysis.measuring.MAX_MAP_BYTES", 4 * 540 * 3 - 1)
    assert batch_size_for(layers, 64) == 2
    monkeypatch.setattr("sharedattn.results.analysis.measuring.MAX_MAP_BYTES", 11)
    assert batch_size_for(layers, 64) == 1
    assert batch_size_for(layers[4:], 64) == 64  # a layer without maps


def test_a_tally_leaves_out_what_is_undefined_and_counts_it():
    tally = MeanAccumulator()
    tally.add(("x",), torch.tensor([1.0, math.nan, 2.0]))
    tally.add(("x",), torch.tensor([6.0]))
    tally.add(("y", 1), torch.tensor([math.nan]))
    assert tally.means() == {("x",): Mean(3.0, 3, 1), ("y", 1): Mean(None, 0, 1)}


def test_every_measure_equals_a_direct_computation(spec_of, images_for):
    spec = spec_of(EVERYTHING)
    network, layers = parts(spec)
    images = images_for(spec)
    found = measure(network, layers, spec.placement, images.batches)
    with torch.inference_mode():
        result = network.run(
            torch.cat(images.batches), spec.placement, collect={"attention", "gates"}
        )
    maps = [None if m is None else m.double().numpy() for m in result.attention]

    expected = {}
    for i in (0, 1, 2, 4):
        num_keys = maps[i].shape[-1]
        rows = -(maps[i] * np.log(maps[i])).sum(-1) / np.log(num_keys)
        expected["entropy", i] = rows.mean()
        first_key = 0 if i == 2 else 1  # the memory has no class token
        rest = maps[i][:, :, 1:, first_key:]
        rest = rest / rest.sum(-1, keepdims=True)
        rows = -(rest * np.log(rest)).sum(-1) / np.log(num_keys - first_key)
        expected["entropy without prefix", i] = rows.mean()
    for i, j in itertools.combinations((0, 1, 4), 2):
        pairs = [(maps[i][b].mean(0).ravel(), maps[j][b].mean(0).ravel()) for b in range(7)]
        cosines = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in pairs]
        expected["cosine", i, j] = np.mean(cosines)
        expected["correlation", i, j] = np.mean([np.corrcoef(x, y)[0, 1] for x, y in pairs])
    for i in (0, 1, 4):
        expected["diagonality", i] = diagonality(result.attention[i].double()).item()
    gates = {i: result.gates[i].double().numpy() for i in range(4)}
    by_pair = {
        (i, j): np.array([np.corrcoef(gates[i][b], gates[j][b])[0, 1] for b in range(7)])
        for i, j in itertools.combinations(gates, 2)
    }
    pooled = np.corrcoef([gates[i].ravel() for i in gates])
    shared = [(0, 1), (2, 3)]
    independent = [pair for pair in by_pair if pair not in shared]
    for pair, values in by_pair.items():
        expected["gates", *pair] = values.mean()
        expected["gates pooled", *pair] = pooled[pair]
    for group, pairs in {
        (): list(by_pair),
        ("of stage", 0): list(by_pair),
        ("of shared",): shared,
        ("of independent",): independent,
    }.items():
        expected["gates mean", *group] = np.mean([by_pair[pair] for pair in pairs])
        expected["gates pooled mean", *group] = np.mean([pooled[pair] for pair in pairs])

    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, abs=1e-6), name
        assert found[name].num_undefined == 0


def test_kinds_and_gates_of_a_plug_in_are_measured(spec_of, images_for, plugged_in):
    with plugged_in():
        spec = spec_of("V/q0,P/w3/q0,V/d0,V/q1")
        network, layers = parts(spec)
        # One that has no maps has no figure of attention, though it attends.
        assert [layer.maps is None for layer in layers] == [False, True, False, False]
        assert labels(comparable_pairs(layers)) == [("1.1", "1.3"), ("1.1", "1.4"), ("1.3", "1.4")]
        assert labels([pair for pair in gate_pairs(layers) if share_unit(*pair)]) == [
            ("1.1", "1.2")
        ]
        images = images_for(spec)
        found = measure(network, layers, spec.placement, images.batches)
        with torch.inference_mode():
            gates = network.run(torch.cat(images.batches), spec.placement, collect={"gates"}).gates
    assert {name[1] for name in found if name[0] == "entropy"} == {0, 2, 3}
    for i, j in itertools.combinations(range(4), 2):
        values = [np.corrcoef(gates[i][b], gates[j][b])[0, 1] for b in range(7)]
        assert found["gates", i, j].value == pytest.approx(np.mean(values), abs=1e-6)
    assert found["gates mean", "of shared"].value == pytest.approx(found["gates", 0, 1].value)


def test_constant_gates_are_undefined_and_counted(spec_of, images_for):
    spec = spec_of("V3/dia1")
    network, layers = parts(spec)
    with torch.no_grad():
        for cell in network.dia_cells[0].values():
            for net in (cell.input_net, cell.hidden_net):
                net[2].weight.zero_()
                net[2].bias.zero_()
    found = measure(network, layers, spec.placement, images_for(spec).batches)
    assert found["gates", 0, 1] == Mean(None, 0, 7)
    assert found["gates mean",] == Mean(None, 0, 7)
    assert found["gates pooled", 0, 1] == Mean(None, 0, 1)
    assert found["gates pooled mean",].value is None


def test_a_less_layer_at_its_start_attends_as_the_layer_it_reuses(spec_of, images_for):
    spec = spec_of("V1L1V1L1/lowrank3")
    network, layers = parts(spec)
    found = measure(network, layers, spec.placement, images_for(spec).batches)
    assert found["cosine", 0, 1].value == pytest.approx(1.0, abs=1e-12)
    assert found["correlation", 2, 3].value == pytest.approx(1.0, abs=1e-9)
    assert found["entropy", 0].value == pytest.approx(found["entropy", 1].value, abs=1e-9)
    assert abs(found["correlation", 1, 2].value) < 0.9


def test_windows_are_measured_by_image(images_for):
    swin = resolve(
        NetworkSpec.parse(
            "swin(depths=2-2,embed_dim=12,num_heads=2-2,patch_size=2,window_size=2-2,in_chans=2,"
            "num_classes=3)@16: V2/cb | E1V1/s5"
        )
    )
    network, layers = parts(swin)
    images = images_for(swin)
    found = measure(network, layers, swin.placement, images.batches)
    with torch.inference_mode():
        maps = network.run(
            torch.cat(images.batches), swin.placement, collect={"attention"}
        ).attention
    assert maps[0].shape == (7 * 16, 2, 4, 4)
    rows = -(maps[0].double() * maps[0].double().log()).sum(-1) / math.log(4)
    assert found["entropy", 0].value == pytest.approx(rows.mean().item(), abs=1e-6)
    assert found["entropy", 2].num_defined == 7
    assert found["diagonality", 0].value == pytest.approx(diagonality(maps[0]).item(), abs=1e-6)
