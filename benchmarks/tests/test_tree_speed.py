"""What the benchmark of the tree measures, on a small set."""

import torch
from tree_speed import measure, peak_bytes, with_and_without_cb

from sharedattn.backbones import build_network
from sharedattn.placement import BackboneSpec, Envelope, Placement

VIT = BackboneSpec.parse(
    "vit(class_token=false,depth=3,embed_dim=12,global_pool=avg,in_chans=1,mlp_ratio=2.0,"
    "num_classes=2,num_heads=2,patch_size=4)@16"
)
NUM_IMAGES = 7


def test_every_set_of_layers_with_cb_is_there_once():
    placements = with_and_without_cb(3)
    assert len(placements) == len(set(placements)) == 2**3


def test_the_tree_agrees_with_single_runs_and_keeps_what_its_branches_share():
    torch.manual_seed(0)
    placements = with_and_without_cb(3)
    network = build_network(VIT, Envelope.of(*placements))
    found = measure("three layers", network, placements, NUM_IMAGES, 3)
    assert found["identical"] is True
    assert (found["placements"], found["compared"]) == (8, 3)
    # A tree of placements that differ in CB alone computes each prefix once: 1 + 2 + 4 attention
    # branches and the layers' ends, so it holds more than the one path of a single placement.
    single = build_network(VIT, Envelope.of(Placement.parse("V3")))
    tokens = NUM_IMAGES * 16 * 12 * 4
    assert peak_bytes(single, [Placement.parse("V3")], NUM_IMAGES) >= 2 * tokens
    assert found["peak_bytes"] > peak_bytes(single, [Placement.parse("V3")], NUM_IMAGES)
