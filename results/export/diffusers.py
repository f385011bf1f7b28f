"""Exported UNets as diffusers' `UNet2DModel.from_pretrained` loads them."""

from __future__ import annotations

import shutil
from pathlib import Path

from sharedattn.backbones.unet import UNetNetwork, to_diffusers
from sharedattn.errors import InputError
from sharedattn.networks.network import Network

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"


def write_diffusers(folder: Path, network: Network) -> str | None:
    """Write `CONFIG_NAME` and `WEIGHTS_NAME` of a UNet that diffusers can run.

    Args:
        folder: the folder of the export.
        network: the exported network, of any family.

    Returns:
        What the files are, or why there are none, as a sentence; None for other families.
    """
    if not isinstance(network, UNetNetwork):
        return None
    try:
        model = to_diffusers(network)
    except InputError as error:
        return f"There are no files for diffusers: {error}."
    model.save_pretrained(folder)
    # Written for its owner alone, unlike all other files.
    shutil.copymode(folder / CONFIG_NAME, folder / WEIGHTS_NAME)
    return (
        f"`{CONFIG_NAME}` and `{WEIGHTS_NAME}` are the same network for diffusers: "
        f"`UNet2DModel.from_pretrained(folder)`."
    )
