"""From a folder of photographs to a network for rectangular images, its export and ONNX file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from commands import document, refusal
from PIL import Image

from sharedattn.data import DataConfig, open_data
from sharedattn.results.export.folder import load_network

NETWORK = "vit(depth=2,embed_dim=10,mlp_ratio=1,num_heads=2,patch_size=8)@24x40: V1L1"


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Twelve images of 27 x 46 pixels: bright on the left, or on the right."""
    rng = np.random.default_rng(7)
    for split, count in (("train", 4), ("val", 2)):
        for side in (0, 1):
            folder = tmp_path / "photographs" / split / ("left", "right")[side]
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 90, (27, 46, 3))
                pixels[:, 23 * side : 23 * side + 23] += 120
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "photographs"


def test_costs_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    said = document(capsys, "cost", NETWORK, "--check")
    assert said["image_size"] == [24, 40]
    assert said["ok"] and said["fvcore_macs"] == said["macs"]
    message = refusal(capsys, "cost", NETWORK.replace("24x40", "25x43"))
    assert "the last row and 3 columns of pixels would be cut off; use 24x40 or 32x48" in message


def test_embedded_images_are_square(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    message = refusal(capsys, "train", NETWORK, "--to", tmp_path / "net")
    assert "has images of 16x16 pixels and 1 channel, but the network takes image size 24x40" in (
        message
    )


@pytest.mark.slow
def test_a_network_is_trained_exported_and_verified(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("epochs: 1\nbatch_size: 4\nwarmup_epochs: 0\n")
    arguments = ("--data", photographs, "--recipe", recipe, "--test-split", "none")
    net = tmp_path / "net"
    said = document(capsys, "train", NETWORK, *arguments, "--to", net, "--onnx")
    assert said["plan"]["data"]["pixels"]["image_size"] == [24, 40]
    config = yaml.safe_load((net / "config.yaml").read_text())
    assert config["evaluation"]["fidelity"]["image_size"] == [24, 40]
    assert config["data"]["identity"]["transform"]["image_size"] == [24, 40]
    card = (net / "README.md").read_text()
    assert "| pixels | 24 x 40, RGB" in card and "images of (B, 3, 24, 40)" in card
    assert document(capsys, "verify", net)["ok"]
    network = load_network(net)
    data = open_data(DataConfig.from_json(config["data"]["config"]))
    [(images, _)] = data.eval_batches("validation", batch_size=4, device=torch.device("cpu"))
    [features] = network.features(images)
    assert features.shape == (4, 10, 3, 5)
    session = onnxruntime.InferenceSession(net / "model.onnx")
    assert json.loads(session.get_modelmeta().custom_metadata_map["image_size"]) == [24, 40]
    (logits,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), network(images), rtol=1e-4, atol=1e-4)
