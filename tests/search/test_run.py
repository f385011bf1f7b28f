"""What a prepared search writes down of itself."""

import pytest
import yaml

from sharedattn.mechanisms.registry import registry
from sharedattn.placement import Placement
from sharedattn.plugins import Plugin
from sharedattn.search.config import SearchConfig
from sharedattn.search.run import prepare

BACKBONE = (
    "vit(class_token=false,depth=2,embed_dim=10,global_pool=avg,in_chans=1,mlp_ratio=1,"
    "num_classes=2,num_heads=2,patch_size=4)@16"
)


@pytest.fixture
def prepared_with(tmp_path):
    """Prepares a search over V, and what else is said of the one stage."""

    def prepared(**stage):
        space = {
            "name": "small",
            "backbone": BACKBONE,
            "order": "any",
            "stages": [{"depth": 2, "counts": {"V": "0..2"}, **stage}],
        }
        path = tmp_path / "space.yaml"
        path.write_text(yaml.safe_dump(space), encoding="utf-8")
        return prepare(SearchConfig.of(space=str(path), device="cpu", out=tmp_path / "out"))

    return prepared


def test_a_fingerprint_names_the_plug_ins_whose_parts_the_space_has(prepared_with, monkeypatch):
    with_external = {"counts": {"V": "1..2", "E": "0..1"}, "slots": [3]}
    plain = prepared_with(**with_external).record
    assert "plugins" not in plain.fingerprint_document
    # As if these came from elsewhere: what is installed and not used changes no fingerprint.
    monkeypatch.setitem(registry().plugins, "branch E", Plugin("memories", "0.7"))
    monkeypatch.setitem(registry().plugins, "gate dia", Plugin("gating", "1.2"))
    found = prepared_with(**with_external)
    assert Placement.parse("V1E1/s3") in found.space
    assert found.record.fingerprint_document["plugins"] == {"memories": "0.7"}
    assert found.record.fingerprint != plain.fingerprint
    assert prepared_with(dia=[0, 1]).record.fingerprint_document["plugins"] == {"gating": "1.2"}
    assert "plugins" not in prepared_with().record.fingerprint_document
