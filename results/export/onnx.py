"""Export a network as ONNX; requires the extra `onnx`.

The file says in its metadata what its input is: how an image file becomes pixels, and what the
outputs are called. `examples/onnx_predict.py` reads nothing else.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sharedattn.errors import InputError
from sharedattn.networks.network import Network

_EXTRA = ("onnx", "onnxscript", "onnxruntime")
BATCH_AXIS = "batch"
MAX_DIFFERENCE = 1e-4  # of logits between the two runtimes, float32


def check_extra() -> None:
    """Find out early that ONNX files cannot be written.

    Raises:
        InputError: the extra `onnx` is not installed.
    """
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"ONNX files require {', '.join(missing)}, which is not installed; run: pip install "
            f"'sharedattn[onnx]'"
        )


def onnx_metadata(
    *,
    network: str,
    image_size: int,
    in_chans: int,
    pixels: Mapping[str, Any] | None,
    class_names: Sequence[str] | None,
    top1: float,
    test_top1: float | None = None,
) -> dict[str, str]:
    """Collect the metadata that `write_onnx` writes into a file beside the network.

    Args:
        network: the network as text.
        image_size: pixels on a side.
        in_chans: image channels, 1 (grey) or 3 (RGB).
        pixels: `mean` and `std` of channels scaled to 0..1, one number a channel, `interpolation`,
            `crop_pct` and `crop_mode`, by timm's words; None: the data has no image files, and
            its pixels are taken as they are.
        class_names: names of the outputs, in their order, or None.
        top1: accuracy on the split that the search chose by, a fraction.
        test_top1: accuracy on the test split, or None without such a split.

    Returns:
        Texts by name; lists and numbers as JSON. Of `None` there is no entry.
    """
    channels = {1: "L", 3: "RGB"}.get(in_chans, f"{in_chans} channels")
    entries: dict[str, Any] = {
        "network": network,
        "input_name": "images",
        "input_layout": "NCHW",
        "input_channels": channels,
        "output_name": "logits",
        "image_size": image_size,
        "top1": top1,
        "sharedattn_version": importlib.metadata.version("sharedattn"),
    }
    if pixels is None:
        entries["input_range"] = f"{channels}, normalised as the data set gives it"
    else:
        entries["input_range"] = f"{channels}, 0..1 before normalisation: (x - mean) / std"
        for name in ("mean", "std", "interpolation", "crop_pct", "crop_mode"):
            entries[name] = pixels[name]
    if test_top1 is not None:
        entries["test_top1"] = test_top1
    if class_names is not None:
        entries["class_names"] = list(class_names)
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in entries.items()
    }


def write_onnx(
    path: Path, network: Network, image_size: int, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a network for any batch size, and compare what it computes.

    Args:
        path: the file.
        network: a network of one placement, in eval mode on the CPU.
        image_size: pixels on a side.
        metadata: entries to write beside it, see `onnx_metadata`, or None.

    Raises:
        InputError: the extra `onnx` is not installed, or logits that are not finite.
        RuntimeError: the written network's logits differ.
    """
    check_extra()
    onnxruntime: Any = importlib.import_module("onnxruntime")
    images_BCYX = _random_images(network, 3, image_size)
    with torch.inference_mode():
        expected = network(images_BCYX)
    if not expected.isfinite().all():
        raise InputError(
            "the network's logits are not finite numbers, so an ONNX file of it would be of no "
            "use; train it again, or export without --onnx"
        )
    # A batch of 2, since the exporter would take a batch of 1 for a constant. Tracing here and not
    # inside `torch.onnx.export` keeps that from falling back to a fixed batch without a word.
    traced = torch.export.export(
        network,
        (_random_images(network, 2, image_size),),
        dynamic_shapes={"images_BCYX": {0: torch.export.Dim(BATCH_AXIS)}},
    )
    program = torch.onnx.export(
        traced, dynamo=True, input_names=["images"], output_names=["logits"], verbose=False
    )
    assert program is not None
    program.save(path)
    _describe(path, metadata or {})
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images_BCYX.numpy()})
    difference = (expected - torch.from_numpy(logits)).abs().max().item()
    # Also of logits that are no numbers.
    if not difference <= MAX_DIFFERENCE:
        raise RuntimeError(
            f"the written ONNX file's logits differ from the network's by {difference}, more than "
            f"{MAX_DIFFERENCE}"
        )


def _describe(path: Path, metadata: Mapping[str, str]) -> None:
    """Name the batch axis and the producer of a written file, add its metadata, and check it."""
    onnx: Any = importlib.import_module("onnx")
    # Weights of large networks lie in a file beside, which stays as it is.
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    # torch's exporter calls a dynamic axis by the symbol that it traced, such as s35.
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(rf"\b{re.escape(symbol)}\b", BATCH_AXIS, dim.dim_param)
    model.producer_name = "sharedattn"
    model.producer_version = importlib.metadata.version("sharedattn")
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, path)
    onnx.checker.check_model(str(path))


def _random_images(network: Network, batch_size: int, image_size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (batch_size, network.backbone.in_chans, image_size, image_size)
    return torch.randn(shape, generator=generator)
