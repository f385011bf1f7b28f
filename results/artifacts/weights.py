"""Store the weights of evaluations as safetensors files, named by evaluation key and contents.

A file is whole or absent. The database keeps its sha256, and records that weights are gone before
they are deleted. Training on a GPU is not bit-repeatable, and an abandoned attempt may end late:
with the contents in its name, its file never replaces the recorded one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from sharedattn.errors import InputError
from sharedattn.results.artifacts.atomic import atomic_write
from sharedattn.results.artifacts.blobs import BlobStore
from sharedattn.weights.pretrained import check_finite


def sha256_of(path: Path) -> str:
    """sha256 of a file's contents, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_weights(path: Path, state_dict: Mapping[str, torch.Tensor]) -> str:
    """Write a state dict so that the file is whole or absent.

    Args:
        path: the file, in an existing folder.
        state_dict: tensors by name; moved to the CPU.

    Returns:
        sha256 of the file.

    Raises:
        OSError: it cannot be written, such as on a full disk; an older file stays.
    """
    content = _content(state_dict)
    atomic_write(path, content)
    return hashlib.sha256(content).hexdigest()


def read_weights(path: Path, sha256: str) -> dict[str, torch.Tensor]:
    """Read weights and check their sha256; nothing from the file is executed.

    Args:
        path: a safetensors file.
        sha256: expected sha256 of its contents.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        InputError: no such file, other contents, not safetensors, or numbers that are not finite.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(str(path), error) from error
    return _tensors(content, sha256, str(path))


@dataclass(frozen=True, slots=True)
class WeightsStore:
    """The weights of a database's evaluations; pickled to workers.

    Attributes:
        blobs: the folder; no other database uses it.
    """

    blobs: BlobStore

    def shown(self, evaluation_key: str, sha256: str) -> str:
        """The location of weights that exist or not, for messages."""
        return self.blobs.shown(_name(evaluation_key, sha256))

    def has(self, evaluation_key: str, sha256: str | None = None) -> bool:
        """Whether weights of an evaluation are kept.

        Args:
            evaluation_key: key of the evaluation.
            sha256: sha256 of the weights, or None to accept those of any attempt.
        """
        prefix = f"{evaluation_key}." if sha256 is None else _name(evaluation_key, sha256)
        return bool(self.blobs.names(prefix))

    def keys(self) -> set[str]:
        """Keys of all evaluations that have weights, recorded ones or not."""
        return {name.partition(".")[0] for name in self.blobs.names()}

    def save(self, evaluation_key: str, state_dict: Mapping[str, torch.Tensor]) -> str:
        """Write weights of an evaluation, beside those of its other attempts.

        Args:
            evaluation_key: as in `EvaluationIdentity.key`.
            state_dict: tensors by name; moved to the CPU.

        Returns:
            Their sha256.

        Raises:
            OSError: they cannot be written, such as on a full disk.
        """
        content = _content(state_dict)
        sha256 = hashlib.sha256(content).hexdigest()
        self.blobs.write(_name(evaluation_key, sha256), content)
        return sha256

    def load(self, evaluation_key: str, sha256: str) -> dict[str, torch.Tensor]:
        """Read the recorded weights of an evaluation.

        Raises:
            InputError: they are absent, or not the recorded ones.
        """
        name = _name(evaluation_key, sha256)
        try:
            content = self.blobs.read(name)
        except OSError as error:
            raise _unreadable(self.blobs.shown(name), error) from error
        return _tensors(content, sha256, self.blobs.shown(name))

    def delete(self, evaluation_key: str, *, but: str | None = None) -> None:
        """Delete the weights of an evaluation, whichever attempt wrote them.

        Args:
            evaluation_key: key of the evaluation.
            but: sha256 of the weights to keep, or None to delete all.
        """
        kept = None if but is None else _name(evaluation_key, but)
        for name in self.blobs.names(f"{evaluation_key}."):
            if name != kept:
                self.blobs.delete(name)

    def sweep(self) -> None:
        """Delete the files of killed writers."""
        self.blobs.sweep()


def _name(evaluation_key: str, sha256: str) -> str:
    return f"{evaluation_key}.{sha256[:16]}.safetensors"


def _content(state_dict: Mapping[str, torch.Tensor]) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()})


def _tensors(content: bytes, sha256: str, shown: str) -> dict[str, torch.Tensor]:
    """Parse contents to tensors by name, after checking their sha256."""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise InputError(
            f"the file {shown} was changed: its sha256 is {found}, but the record has {sha256}"
        )
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise InputError(f"the file {shown} is not a safetensors file: {error}") from error
    check_finite(tensors, shown)
    return tensors


def _unreadable(shown: str, error: OSError) -> InputError:
    return InputError(f"the weights {shown} cannot be read: {error.strerror or error}")
