"""Locations of a search's database, weights and checkpoints."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sharedattn.results.artifacts.blobs import BlobStore
from sharedattn.results.artifacts.weights import WeightsStore
from sharedattn.results.database.engine import parse_url, sqlite_file, sqlite_url

DATABASE_NAME = "sharedattn.db"
WEIGHTS_NAME = "weights"
SCANS_NAME = "scans"


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageConfig:
    """Where a search keeps its database, weights, reports and exports.

    Attributes:
        storage: the database's URL, or None for an SQLite file in `out`.
        out: folder of the database, weights, reports and exports.
    """

    storage: str | None = None
    out: Path = Path("sharedattn-out")

    @property
    def url(self) -> str:
        """URL of the database."""
        return self.storage or sqlite_url(self.out / DATABASE_NAME)

    @property
    def database(self) -> Path | None:
        """File of the database, or None if it is on a server."""
        return sqlite_file(parse_url(self.url))

    @property
    def scans(self) -> Path:
        """Folder of what scans of image folders have seen."""
        return self._beside_database / SCANS_NAME

    def weights(self, weights_dir: str | None) -> WeightsStore:
        """The store of weights and checkpoints.

        Args:
            weights_dir: a folder, or a URL of one; None for a folder `weights` beside the
                database's file, or in `out`.

        Raises:
            InputError: a URL that means nothing.
        """
        place = weights_dir or str(self._beside_database / WEIGHTS_NAME)
        # Workers and later runs may have another current folder.
        return WeightsStore(BlobStore(place if "://" in place else os.path.abspath(place)))

    @property
    def _beside_database(self) -> Path:
        database = self.database
        return database.parent if database else self.out
