"""Where a search keeps things: its database, and the folder of weights and checkpoints."""

from __future__ import annotations

import os
from pathlib import Path

from sharedattn.results.artifacts.blobs import BlobStore
from sharedattn.results.artifacts.weights import WeightsStore
from sharedattn.results.database.engine import parse_url, sqlite_file, sqlite_url

DATABASE_NAME = "sharedattn.db"
WEIGHTS_NAME = "weights"
SCANS_NAME = "scans"


def storage_url(storage: str | None, out: Path) -> str:
    """The database that is asked for, or the one in `out`."""
    return storage or sqlite_url(out / DATABASE_NAME)


def scans_folder(storage: str | None, out: Path) -> Path:
    """Where looks at folders of images are remembered: beside the database's file, or in `out`."""
    database = sqlite_file(parse_url(storage_url(storage, out)))
    return (database.parent if database else out) / SCANS_NAME


def weights_store(weights_dir: str | None, storage: str, out: Path) -> WeightsStore:
    """The weights at the place asked for, or beside the database's file, or in `out`.

    Args:
        weights_dir: a folder, or a URL of one; None: a folder `weights`.
        storage: the database's URL.
        out: where things go that have no other place.

    Raises:
        InputError: a URL that means nothing.
    """
    if weights_dir is None:
        database = sqlite_file(parse_url(storage))
        weights_dir = str((database.parent if database else out) / WEIGHTS_NAME)
    # Workers and later runs may have another current folder.
    is_url = "://" in weights_dir
    return WeightsStore(BlobStore(weights_dir if is_url else os.path.abspath(weights_dir)))
