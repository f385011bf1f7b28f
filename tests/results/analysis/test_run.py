"""An analysis: the network beside its random controls, and what each comparison compares."""

import json
import statistics
from dataclasses import replace

import pytest
import torch

from sharedattn.backbones import build, describe, resolve
from sharedattn.data import DataConfig, open_data
from sharedattn.errors import InputError
from sharedattn.networks.measures import broadcasting_entropy
from sharedattn.placement import Envelope, NetworkSpec, Placement
from sharedattn.results.analysis import (
    Figure,
    TrainedNetwork,
    analyse,
    broadcasting_counterpart,
    check_counterpart,
    random_network,
    read_images,
    unshared,
)
from sharedattn.results.analysis.document import analysis_document
from sharedattn.results.analysis.measuring import Mean, layers_of, measure
from sharedattn.results.analysis.plots import write_plots
from sharedattn.training.trainer import initialise

SEEDS = (1, 2, 3)


def entropies(network, spec, placement, images):
    layers = layers_of(describe(spec.backbone), placement, spec.backbone.options)
    means = measure(network, layers, placement, images.batches)
    return {name[1]: mean.value for name, mean in means.items() if name[0] == "entropy"}


@pytest.mark.parametrize("init", ["timm", "torch"])
def test_a_control_is_where_the_training_of_its_seed_begins(spec_of, init):
    spec = spec_of("V1L1E1/s7/dia1/cb")
    before = torch.get_rng_state()
    envelope = Envelope.of(spec.placement, broadcasting_counterpart(spec))
    found = random_network(spec.backbone, envelope, init, 5).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    trained = build(spec, drop_path_rate=0.1)
    initialise(trained, init)
    expected = trained.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_figures_stand_beside_the_mean_and_sd_of_the_controls(spec_of, images_for):
    spec = spec_of("V1L1V1/cb")
    images = images_for(spec)
    weights = random_network(spec.backbone, Envelope.of(spec.placement), "torch", 77).state_dict()
    found = analyse(spec, weights, images, init="torch", control_seeds=SEEDS)
    by_seed = {
        seed: entropies(
            random_network(spec.backbone, Envelope.of(spec.placement), "torch", seed),
            spec,
            spec.placement,
            images,
        )
        for seed in (77, *SEEDS)
    }
    for position in range(3):
        figure = found.figures["entropy", position]
        controls = [by_seed[seed][position] for seed in SEEDS]
        assert figure.value == pytest.approx(by_seed[77][position], abs=1e-12)
        assert figure.control_mean == pytest.approx(statistics.fmean(controls), abs=1e-12)
        assert figure.control_sd == pytest.approx(statistics.stdev(controls), abs=1e-12)
    assert found.num_images == 7


def test_a_network_without_weights_is_a_random_one(spec_of, images_for):
    spec = spec_of("V2")
    images = images_for(spec)
    found = analyse(spec, None, images, init="torch", seed=5, control_seeds=(5, 6))
    own = random_network(spec.backbone, Envelope.of(spec.placement), "torch", 5)
    expected = entropies(own, spec, spec.placement, images)
    assert found.figures["entropy", 1].value == pytest.approx(expected[1], abs=1e-12)


def test_undefined_controls_are_left_out():
    values = Mean(0.5, 5, 2), [Mean(0.1, 7, 0), Mean(None, 0, 7), Mean(0.3, 7, 0)]
    figure = Figure.of(*values)
    assert (figure.value, figure.num_undefined) == (0.5, 2)
    assert figure.control_mean == pytest.approx(0.2)
    assert figure.control_sd == pytest.approx(statistics.stdev([0.1, 0.3]))
    assert Figure.of_values(None, [None, 0.3]) == Figure(None, 0, 0.3, None)


@pytest.mark.parametrize(
    ("placement", "counterpart"), [("V4/cb2", "V4"), ("V4", "V4/cb"), ("V2N2/cb", "V2N2")]
)
def test_the_counterpart_has_broadcasting_the_other_way(spec_of, placement, counterpart):
    assert str(broadcasting_counterpart(spec_of(placement))) == counterpart


@pytest.mark.parametrize("placement", ["V3/cb", "V3"])
@pytest.mark.parametrize("form", ["plain", "scaled"])
def test_change_with_broadcasting_is_with_less_without(spec_of, images_for, placement, form):
    spec = spec_of(placement)
    backbone = spec.backbone
    spec = replace(
        spec,
        backbone=replace(backbone, options=replace(backbone.options, broadcasting_form=form)),
    )
    images = images_for(spec)
    envelope = Envelope.of(Placement.parse("V3"), Placement.parse("V3/cb"))
    network = random_network(spec.backbone, envelope, "torch", 8)
    own = random_network(spec.backbone, Envelope.of(spec.placement), "torch", 8).state_dict()
    found = analyse(spec, own, images, init="torch", control_seeds=SEEDS)
    with_cb, without = (
        entropies(network, spec, Placement.parse(text), images) for text in ("V3/cb", "V3")
    )
    for position in range(3):
        assert found.broadcasting_change[position].value == pytest.approx(
            with_cb[position] - without[position], abs=1e-12
        )
    # The first layer attends before anything was broadcast.
    assert found.broadcasting_change[0].value == 0
    assert found.broadcasting_change[2].value != 0
    assert found.broadcasting_change[2].control_sd > 0
    assert found.trained_change is None


@pytest.mark.parametrize(
    ("text", "counterpart"), [("V3/cb2", "V3"), ("V3", "V3/cb2")], ids=["with", "without"]
)
@pytest.mark.parametrize("options", [{}, {"broadcasting_form": "scaled"}], ids=["plain", "scaled"])
def test_change_against_a_trained_counterpart(spec_of, images_for, text, counterpart, options):
    def one(text):
        spec = spec_of(text)
        options_of = replace(spec.backbone.options, **options)
        # What has no broadcasting has no form of it either.
        return resolve(replace(spec, backbone=replace(spec.backbone, options=options_of)))

    spec, other = one(text), one(counterpart)
    images = images_for(spec)
    networks = {
        s: random_network(s.backbone, Envelope.of(s.placement), "torch", seed)
        for s, seed in ((spec, 21), (other, 22))
    }
    found = analyse(
        spec,
        networks[spec].state_dict(),
        images,
        init="torch",
        control_seeds=SEEDS,
        counterpart=TrainedNetwork(other, networks[other].state_dict()),
    )
    with_cb, without = (
        entropies(networks[s], s, s.placement, images)
        for s in sorted((spec, other), key=lambda s: "cb" not in str(s.placement))
    )
    assert found.trained_change == pytest.approx(
        {i: with_cb[i] - without[i] for i in range(3)}, abs=1e-12
    )
    assert found.trained_change[0] != 0
    document = analysis_document(found)["broadcasting"]
    assert document["layers"][1]["trained_change"] == found.trained_change[1]
    assert document["counterpart"] == counterpart


def test_gates_of_a_shared_unit_are_alike_before_training_and_of_units_apart_are_not(
    spec_of, images_for
):
    spec = spec_of("V5/dia1")
    found = analyse(spec, None, images_for(spec), init="torch", control_seeds=range(1, 6))
    # The later calls carry the state on, so the first two layers are the least alike.
    assert found.figures["gates mean",].control_mean > 0.8
    assert found.figures["gates mean", "of shared"].value > 0.8
    assert ("gates mean", "of independent") not in found.figures
    assert abs(found.unshared_gates["gates mean",].control_mean) < 0.2
    document = analysis_document(found)["gates"]
    assert document["independent"] is None
    assert document["shared"]["unshared_control_mean"] == pytest.approx(
        found.unshared_gates["gates mean", "of shared"].control_mean
    )
    assert all(pair["shared_unit"] for pair in document["pairs"])


def test_units_apart_need_no_other_control(spec_of, images_for):
    spec = spec_of("V2/dia2")
    found = analyse(spec, None, images_for(spec), init="torch", control_seeds=SEEDS)
    assert found.unshared_gates is None
    document = analysis_document(found)["gates"]
    assert "unshared_control_mean" not in document["mean"]
    assert document["shared"] is None
    assert document["independent"]["value"] == document["mean"]["value"]


def test_gates_of_residual_blocks(images_for):
    """They have no attention, and no broadcasting to compare with."""
    backbone = (
        "resnet_cifar(depths=3-2,in_chans=2,inner_widths=6-10,num_classes=3,se_reduction=2,"
        "sge_groups=2,stem_width=6,widths=6-10)@12"
    )
    of = {
        text: resolve(NetworkSpec.parse(f"{backbone}: {text}"))
        for text in ("V3/se | V2/se", "V3/se1 | V2", "V3/sge | V2")
    }
    assert broadcasting_counterpart(of["V3/se | V2/se"]) is None
    found = {
        text: analyse(spec, None, images_for(spec), init="torch", control_seeds=range(1, 6))
        for text, spec in of.items()
    }
    apart, shared, constant = (analysis_document(one) for one in found.values())
    assert apart["broadcasting"] is None
    assert apart["entropy"] == apart["diagonality"] == []
    assert abs(apart["gates"]["mean"]["control_mean"]) < 0.3
    assert [stage["stage"] for stage in apart["gates"]["stages"]] == [1, 2]
    assert len(apart["gates"]["pairs"]) == 3 + 1
    assert shared["gates"]["mean"]["value"] > 0.8
    assert abs(shared["gates"]["mean"]["unshared_control_mean"]) < 0.5
    # SGE's gate begins as one number for all channels.
    assert constant["gates"]["mean"]["value"] is None
    assert sum(pair["undefined"] for pair in constant["gates"]["pairs"]) == 3 * 7


def test_external_memories_of_residual_blocks_have_entropy_and_no_broadcasting(
    images_for, tmp_path
):
    text = (
        "resnet_cifar(depths=3-2,in_chans=2,inner_widths=6-10,num_classes=3,stem_width=6,"
        "widths=6-10)@12: V2E1/s5 | V2"
    )
    spec = resolve(NetworkSpec.parse(text))
    found = analyse(spec, None, images_for(spec), init="torch", control_seeds=SEEDS)
    assert found.broadcasting_change == {}
    [entropy] = analysis_document(found)["entropy"]
    assert (entropy["layer"], entropy["keys"]) == ("1.3", 5) and 0 < entropy["value"] <= 1
    assert write_plots(tmp_path, found) == ["entropy.svg"]
    assert "Change with CB" not in (tmp_path / "entropy.svg").read_text()


def test_a_unit_for_each_gated_layer():
    placement = Placement.parse("V/d0,V,L/d0,E/s7/d1 | V2/dia1")
    assert str(unshared(placement)) == "V/d0,V,L/d1,E/s7/d2 | V2/dia2"


def test_a_cell_each_of_whichever_gate(plugged_in):
    with plugged_in():
        placement = Placement.parse("V/q0,V/q0,V/d0,V/q0,V/d0")
        assert str(unshared(placement)) == "V/q0,V/q1,V/d0,V/q2,V/d1"


def test_the_document_is_plain_json_with_every_part(spec_of, images_for):
    spec = spec_of("V/d0,L/d0/cb,E/s7/d1,N/d1/cb,V/cb")
    found = analyse(spec, None, images_for(spec), init="torch", control_seeds=SEEDS)
    document = json.loads(json.dumps(analysis_document(found), allow_nan=False))
    assert document["network"] == str(spec)
    assert document["images"] == 7
    assert document["control"] == {"seeds": [1, 2, 3], "init": "torch"}
    assert set(document["definitions"]) == {
        "figure", "entropy", "broadcasting", "similarity", "diagonality", "gates"
    }  # fmt: skip
    entropy = document["entropy"]
    assert [row["layer"] for row in entropy] == ["1.1", "1.2", "1.3", "1.5"]
    assert [row["keys"] for row in entropy] == [10, 10, 7, 10]
    assert all(
        0 < row["value"] <= 1 and 0 < row["without_prefix"]["value"] <= 1 for row in entropy
    )
    assert document["broadcasting"]["map_entropy"] == [broadcasting_entropy(10)]
    [group] = document["similarity"]["groups"]
    assert group["layers"] == ["1.1", "1.2", "1.5"]
    matrix = group["correlation"]["value"]
    assert [matrix[i][i] for i in range(3)] == [1, 1, 1]
    assert matrix[0][2] == matrix[2][0] == found.figures["correlation", 0, 4].value
    consecutive = document["similarity"]["consecutive"]
    assert [pair["layers"] for pair in consecutive] == [["1.1", "1.2"], ["1.2", "1.5"]]
    assert [row["layer"] for row in document["diagonality"]] == ["1.1", "1.2", "1.5"]
    assert len(document["gates"]["pairs"]) == 6


def test_broadcasting_over_patches_alone_and_scaled(spec_of, images_for):
    spec = spec_of("V1")
    for options, expected in (
        ({"class_token_in_mean": False}, broadcasting_entropy(10, 1)),
        ({"broadcasting_form": "scaled"}, None),
    ):
        changed = replace(spec.backbone.options, **options)
        other = NetworkSpec(replace(spec.backbone, options=changed), spec.placement)
        found = analyse(other, None, images_for(other), init="timm", control_seeds=SEEDS)
        document = analysis_document(found)
        assert document["broadcasting"]["map_entropy"] == [expected]
        assert document["gates"] is None


def test_maps_that_are_not_square_have_no_diagonality(images_for):
    spec = NetworkSpec.parse(
        "pvt_v2_b0(depths=1-1-1-1,in_chans=2,num_classes=3)@32: V1 | V1 | V1 | V1"
    )
    found = analyse(spec, None, images_for(spec), init="timm", control_seeds=(1, 2))
    rows = analysis_document(found)["diagonality"]
    assert rows[0]["figure"] is None
    assert rows[0]["refused"] == "64 queries and 1 keys: no diagonal"
    assert analysis_document(found)["broadcasting"]["map_entropy"][-1] is None  # of one token
    # One key: attention is uniform and one-hot at once.
    entropy = analysis_document(found)["entropy"][0]
    assert (entropy["value"], entropy["undefined"], entropy["control_mean"]) == (None, 7, None)


def test_images_are_spread_over_the_validation_split():
    spec = NetworkSpec.parse(
        "vit(embed_dim=4,num_heads=1,depth=1,patch_size=8,num_classes=2,in_chans=1)@16: V1"
    )
    data = open_data(DataConfig(name="digit-pairs"))
    images = read_images(data, spec, 13, batch_size=5)
    assert [len(batch) for batch in images.batches] == [5, 5, 3]
    every = torch.cat(
        [x for x, _ in data.eval_batches("validation", batch_size=999, device=torch.device("cpu"))]
    )
    expected = every[[i * 4000 // 13 for i in range(13)]]
    assert torch.equal(torch.cat(images.batches), expected)
    assert images.count == 13
    assert max(len(b) for b in read_images(data, spec, 200, batch_size=128).batches) == 64


def test_what_is_refused(spec_of, images_for):
    spec = spec_of("V3/cb")
    images = images_for(spec)
    with pytest.raises(InputError, match="`control_seeds` has 1; a control has at least 2"):
        analyse(spec, None, images, init="timm", control_seeds=(1,))
    with pytest.raises(InputError, match="`images` is 0; measure on at least 1"):
        read_images(open_data(DataConfig(name="digit-pairs")), spec, 0, batch_size=5)
    weights = build(spec).state_dict()
    weights["more"] = weights.pop("head.bias")
    with pytest.raises(InputError, match="the weights do not fit vit.*more, head.bias"):
        analyse(spec, weights, images, init="timm", control_seeds=SEEDS)
    weights = build(spec_of("V2")).state_dict()
    weights["norm.bias"] = torch.zeros(3)
    with pytest.raises(InputError, match="do not fit vit.*size mismatch for norm.bias"):
        analyse(spec, weights, images, init="timm", control_seeds=SEEDS)
    for other in ("V3/cb1", "V2", "V2L1", "V3/dia1"):
        with pytest.raises(
            InputError,
            match="is no counterpart of vit.*where the network has none",
        ):
            check_counterpart(spec, spec_of(other))
    with pytest.raises(InputError, match="is no counterpart of vit.*where the network has none"):
        analyse(
            spec,
            None,
            images,
            init="timm",
            control_seeds=SEEDS,
            counterpart=TrainedNetwork(spec_of("V2"), {}),
        )
