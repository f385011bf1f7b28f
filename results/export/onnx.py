"""Export a network as ONNX; requires the extra `onnx`.

The file's metadata describes its input, from image file to pixels, and the names of its outputs;
`examples/onnx_predict.py` reads nothing else.
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
from sharedattn.image_size import AnySize, ImageSize
from sharedattn.networks.network import Network

_EXTRA = ("onnx", "onnxscript", "onnxruntime")
BATCH_AXIS = "batch"
MAX_DIFFERENCE = 1e-4  # between the logits of the two runtimes, float32


def check_extra() -> None:
    """Check early that ONNX files can be written.

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
    image_size: AnySize,
    in_chans: int,
    pixels: Mapping[str, Any] | None,
    class_names: Sequence[str] | None,
    quality: str,
    value: float,
    test_value: float | None = None,
) -> dict[str, str]:
    """The metadata that `write_onnx` writes into a file along with the network.

    Args:
        network: the network as text.
        image_size: pixels on a side of the images, or their height and width.
        in_chans: image channels, 1 (grey) or 3 (RGB).
        pixels: in timm's terms, `mean` and `std` of channels scaled to 0..1, one number per
            channel, `interpolation`, `crop_pct` and `crop_mode`; or None if the data has no image
            files, whose pixels are used as they are.
        class_names: names of the outputs, in their order, or None.
        quality: name of what was measured, such as top1.
        value: it on the split that the search selected by, a fraction.
        test_value: it on the test split, or None without such a split.

    Returns:
        Texts by name; lists and numbers as JSON. None values have no entry.
    """
    channels = {1: "L", 3: "RGB"}.get(in_chans, f"{in_chans} channels")
    entries: dict[str, Any] = {
        "network": network,
        "input_name": "images",
        "input_layout": "NCHW",
        "input_channels": channels,
        "output_name": "logits",
        "image_size": ImageSize.of(image_size).to_json(),
        quality: value,
        "sharedattn_version": importlib.metadata.version("sharedattn"),
    }
    if pixels is None:
        entries["input_range"] = f"{channels}, normalised as the data set gives it"
    else:
        entries["input_range"] = f"{channels}, 0..1 before normalisation: (x - mean) / std"
        for name in ("mean", "std", "interpolation", "crop_pct", "crop_mode"):
            entries[name] = pixels[name]
    if test_value is not None:
        entries[f"test_{quality}"] = test_value
    if class_names is not None:
        entries["class_names"] = list(class_names)
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in entries.items()
    }


def write_onnx(path: Path, network: Network, metadata: Mapping[str, str] | None = None) -> None:
    """Write a network for any batch size, and compare its logits with torch's.

    Inputs are `images` and, of a denoiser, `timesteps`; the output, `logits`, is then noise.

    Args:
        path: the file.
        network: a network of one placement, in eval mode on the CPU.
        metadata: metadata entries, see `onnx_metadata`, or None.

    Raises:
        InputError: the extra `onnx` is not installed, or logits are not finite.
        RuntimeError: the written network's logits differ.
    """
    check_extra()
    onnxruntime: Any = importlib.import_module("onnxruntime")
    inputs = _random_inputs(network, 3)
    with torch.inference_mode():
        expected = network(*inputs.values())
    if not expected.isfinite().all():
        raise InputError(
            "the network's logits are not finite numbers, so its ONNX file would be of no use; "
            "train it again, or export without --onnx"
        )
    # A batch of 2, since the exporter treats a batch of 1 as constant. Traced here, since
    # `torch.onnx.export` would silently fall back to a fixed batch.
    batch = torch.export.Dim(BATCH_AXIS)
    traced = torch.export.export(
        network,
        tuple(_random_inputs(network, 2).values()),
        dynamic_shapes=[{0: batch} for _ in inputs],
    )
    program = torch.onnx.export(
        traced, dynamo=True, input_names=list(inputs), output_names=["logits"], verbose=False
    )
    assert program is not None
    program.save(path)
    _describe(path, metadata or {})
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {name: given.numpy() for name, given in inputs.items()})
    difference = (expected - torch.from_numpy(logits)).abs().max().item()
    # Written so that it also catches NaN.
    if not difference <= MAX_DIFFERENCE:
        raise RuntimeError(
            f"the written ONNX file's logits differ from the network's by {difference}, more than "
            f"{MAX_DIFFERENCE}"
        )


def _describe(path: Path, metadata: Mapping[str, str]) -> None:
    """Name the batch axis and the producer of a written file, add its metadata, and check it."""
    onnx: Any = importlib.import_module("onnx")
    # Weights of large networks lie in a separate file, which stays as it is.
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    # torch's exporter names a dynamic axis by the symbol that it traced, such as s35.
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


def _random_inputs(network: Network, batch_size: int) -> dict[str, torch.Tensor]:
    """Images (B, C, Y, X) and, of a denoiser, timesteps (B,), by name."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch_size, network.backbone.in_chans, *network.shape.image_size)
    inputs = {"images": torch.randn(shape, generator=generator)}
    if network.takes_timesteps:
        inputs["timesteps"] = torch.randint(1000, (batch_size,), generator=generator)
    return inputs
