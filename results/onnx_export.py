"""A network as ONNX; needs the extra `onnx`."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import torch

from sharedattn.errors import InputError
from sharedattn.network import Network

_EXTRA = ("onnx", "onnxscript", "onnxruntime")
MAX_DIFFERENCE = 1e-4  # of logits between the two runtimes, float32


def check_extra() -> None:
    """Find out early that ONNX files cannot be written.

    Raises:
        InputError: the extra `onnx` is not installed.
    """
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"`ONNX needs the extra onnx` must hold, but {', '.join(missing)} is not installed; "
            f"run: pip install 'sharedattn[onnx]'"
        )


def write_onnx(path: Path, network: Network, image_size: int) -> None:
    """Write a network for any batch size, and compare what it computes.

    Args:
        path: the file.
        network: a network of one placement, in eval mode on the CPU.
        image_size: pixels on a side.

    Raises:
        InputError: the extra `onnx` is not installed.
        RuntimeError: the written network's logits differ.
    """
    check_extra()
    onnxruntime: Any = importlib.import_module("onnxruntime")
    # A batch of 2, since the exporter would take a batch of 1 for a constant. Tracing here and not
    # inside `torch.onnx.export` keeps that from falling back to a fixed batch without a word.
    traced = torch.export.export(
        network,
        (_random_images(network, 2, image_size),),
        dynamic_shapes={"images_BCYX": {0: torch.export.Dim("batch")}},
    )
    program = torch.onnx.export(
        traced, dynamo=True, input_names=["images"], output_names=["logits"], verbose=False
    )
    assert program is not None
    program.save(path)
    images_BCYX = _random_images(network, 3, image_size)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images_BCYX.numpy()})
    with torch.inference_mode():
        difference = (network(images_BCYX) - torch.from_numpy(logits)).abs().max().item()
    if difference > MAX_DIFFERENCE:
        raise RuntimeError(
            f"`ONNX logits agree to {MAX_DIFFERENCE}` must hold, but they differ by {difference}"
        )


def _random_images(network: Network, batch_size: int, image_size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (batch_size, network.backbone.in_chans, image_size, image_size)
    return torch.randn(shape, generator=generator)
