"""Weights of evaluations: one safetensors file each, named by the evaluation's key.

A file appears whole or not at all: it is written beside its place, flushed to the disk, then
renamed. The database keeps its sha256, and says that weights are gone before they are deleted.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from results.temporary import orphans, temporary_beside
from sharedattn.errors import InputError


def sha256_of(path: Path) -> str:
    """sha256 of a file's contents, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_weights(path: Path, state_dict: Mapping[str, torch.Tensor]) -> str:
    """Write a state dict where it is whole or absent.

    Args:
        path: the file, in a folder that exists.
        state_dict: tensors by name; moved to the CPU.

    Returns:
        sha256 of the file.

    Raises:
        OSError: it cannot be written, such as on a full disk; what was there before stays.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    # Not safetensors' own `save_file`, whose error of a full disk has no errno.
    content = save(tensors)
    temporary = temporary_beside(path)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return hashlib.sha256(content).hexdigest()


def read_weights(path: Path, sha256: str) -> dict[str, torch.Tensor]:
    """Read weights that are the ones meant; nothing from the file is executed.

    Args:
        path: a safetensors file.
        sha256: what its contents must hash to.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        InputError: no such file, other contents, or not safetensors.
    """
    try:
        found = sha256_of(path)
    except OSError as error:
        raise InputError(
            f"`the weights are on the disk` must hold, but {path}: {error.strerror}"
        ) from error
    if found != sha256:
        raise InputError(
            f"`the weights are the recorded ones` must hold, but {path} has sha256 {found} and "
            f"the record {sha256}; the file was changed"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(
            f"`weights are a safetensors file` must hold, but {path}: {error}"
        ) from error


@dataclass(frozen=True, slots=True)
class WeightsStore:
    """The folder of a database's weights; pickled to workers.

    Attributes:
        folder: made when the first weights are saved.
    """

    folder: Path

    def path(self, evaluation_key: str) -> Path:
        """Where the weights of an evaluation are, or would be."""
        return self.folder / f"{evaluation_key}.safetensors"

    def has(self, evaluation_key: str) -> bool:
        """Whether the weights of an evaluation are on the disk."""
        return self.path(evaluation_key).is_file()

    def save(self, evaluation_key: str, state_dict: Mapping[str, torch.Tensor]) -> str:
        """Write the weights of an evaluation, in place of older ones; their sha256."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return write_weights(self.path(evaluation_key), state_dict)

    def load(self, evaluation_key: str, sha256: str) -> dict[str, torch.Tensor]:
        """Read the weights of an evaluation.

        Raises:
            InputError: they are not there, or not the recorded ones.
        """
        return read_weights(self.path(evaluation_key), sha256)

    def delete(self, evaluation_key: str) -> None:
        """Delete the weights of an evaluation, if they are there."""
        self.path(evaluation_key).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Delete what killed processes were writing."""
        for path in orphans(self.folder, r".+\.safetensors"):
            path.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Make a rename last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
