"""Latency of placements on a device, measured on the stand-alone network.

Latencies are never summed from times of layers: such sums were off by more than 5 % on every
machine tried.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from sharedattn.backbones import build
from sharedattn.costs.timing import Timing, device_name, time_call, torch_threads
from sharedattn.errors import InputError
from sharedattn.placement import NetworkSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySetting:
    """The settings that latencies depend on besides the network; never mix different ones.

    Attributes:
        device: torch device, "cpu" or "cuda".
        device_name: model of the device.
        threads: torch threads.
        torch_version: version of torch.
        dtype: data type of weights and images.
        batch_size: number of images per forward pass; the latency is that of the whole batch.
    """

    device: str
    device_name: str
    threads: int
    torch_version: str
    dtype: str
    batch_size: int

    @classmethod
    def here(cls, device: str, batch_size: int) -> LatencySetting:
        """The setting of this process.

        Args:
            device: "cpu" or "cuda".
            batch_size: number of images per forward pass; > 0.

        Raises:
            InputError: `batch_size` is less than 1.
        """
        if batch_size < 1:
            raise InputError(f"`batch_size` of a latency is {batch_size}; give 1 or more images")
        return cls(
            device=device,
            device_name=device_name(device),
            threads=torch.get_num_threads(),
            torch_version=torch.__version__,
            dtype=str(torch.get_default_dtype()).removeprefix("torch."),
            batch_size=batch_size,
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of all fields."""
        return asdict(self)

    @property
    def device_text(self) -> str:
        """The device's name, with the number of threads for a CPU."""
        plural = "" if self.threads == 1 else "s"
        threads = f", {self.threads} thread{plural}" if self.device == "cpu" else ""
        return f"{self.device_name}{threads}"

    def __str__(self) -> str:
        return (
            f"{self.device_text}, {self.dtype}, batch of {self.batch_size}, "
            f"torch {self.torch_version}"
        )


def measure_network(spec: NetworkSpec, setting: LatencySetting) -> Timing:
    """Time forward passes of a placement's stand-alone network in eval mode.

    Args:
        spec: the network.
        setting: the setting, of this process.

    Returns:
        The median of the repeated measurements.
    """
    # Building and drawing images use torch's generator; restore it afterwards.
    with (
        torch.random.fork_rng(devices=()),
        torch.inference_mode(),
        torch_threads(setting.threads),
    ):
        network = build(spec).to(setting.device).eval()
        images_BCYX = torch.randn(
            setting.batch_size,
            spec.backbone.in_chans,
            *network.shape.image_size,
            generator=torch.Generator().manual_seed(0),
        ).to(setting.device)
        return time_call(lambda: network(images_BCYX), setting.device)
