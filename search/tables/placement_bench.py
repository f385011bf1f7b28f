"""The file of PlacementBench: measured learning curves, and predicted ones of all other members.

It is a compressed NumPy archive without pickles, which needs nothing but NumPy to be read. The
predictions are stored rather than fitted when read: so all machines search the same table.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sharedattn.errors import InputError
from sharedattn.hashing import document_key
from sharedattn.results.artifacts.atomic import atomic_write

Floats = NDArray[np.float64]
Part = Literal["measured", "surrogate"]

SHIPPED = Path(__file__).parent / "placement-bench.npz"
FORMAT = 1
NUM_LIKE = 25  # measured placements that the noise of a predicted one is drawn from
_TEXTS = ("about", "placements")
_IDENTITY = ("space", "task", "recipe", "data", "seeds")


@dataclass(frozen=True, eq=False, kw_only=True)
class PlacementBench:
    """Learning curves of a space's members on one task.

    M members, of which P are measured with S seeds each, over E epochs.

    Attributes:
        about: `space`, its document; `task`; `recipe` and `data`, first digits of their keys;
            `seeds`, (S,); any figures besides.
        placements: all members, as text.
        measured: (P,), int, which of them are measured.
        top1: (P, S, E), validation accuracy after each epoch.
        seconds: (P, S), CPU seconds of a whole training on one thread.
        inherited: (M,), accuracy with a supernet's weights; NaN where there is none.
        predicted: (M, E), the surrogate's mean accuracy after each epoch.
        predicted_s: (M,), the surrogate's seconds of a whole training.

    Raises:
        InputError: the arrays do not fit each other, a training is missing, a placement stands
            twice, or an accuracy is not from 0 to 1; the message names the placement.
    """

    about: Mapping[str, Any]
    placements: tuple[str, ...]
    measured: NDArray[np.int64]
    top1: Floats
    seconds: Floats
    inherited: Floats
    predicted: Floats
    predicted_s: Floats

    def __post_init__(self) -> None:
        self._check_shapes()
        self._check_values()

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the measured trainings."""
        return tuple(self.about["seeds"])

    @property
    def epochs(self) -> int:
        """Length of the learning curves."""
        return int(self.top1.shape[2])

    @property
    def space_document(self) -> dict[str, Any]:
        """The space, as its `to_document` gives it."""
        return dict(self.about["space"])

    @cached_property
    def key(self) -> str:
        """sha256 of the contents, the same on all machines."""
        arrays = {
            f.name: hashlib.sha256(
                np.ascontiguousarray(getattr(self, f.name)).astype("<f8").tobytes()
            ).hexdigest()
            for f in fields(self)
            if f.name not in _TEXTS
        }
        known = {name: self.about[name] for name in _IDENTITY}
        return document_key({**known, "placements": list(self.placements), **arrays})

    def texts(self, part: Part) -> tuple[str, ...]:
        """The placements of a part: those that are measured, or all."""
        if part == "surrogate":
            return self.placements
        return tuple(self.placements[number] for number in self.measured)

    def truth(self, part: Part) -> dict[str, float]:
        """Accuracy without noise by placement: the mean over seeds, or what is predicted."""
        values = self.predicted[:, -1] if part == "surrogate" else self.top1[:, :, -1].mean(axis=1)
        return dict(zip(self.texts(part), map(float, values), strict=True))

    def curve(self, part: Part, placement: str, seed: int) -> Floats:
        """The learning curve of one training.

        Args:
            part: of which part; noise is added to what is predicted as it was measured: how one
                training differed from the mean of its placement, one of those that are nearest in
                accuracy. Equal placements and seeds get equal noise.
            placement: its text.
            seed: of the training; of a measured one modulo the number of seeds.

        Returns:
            (E,), accuracies after each epoch, 0 to 1.

        Raises:
            KeyError: the part has no such placement.
        """
        number = self._number(part, placement)
        if part == "measured":
            curve: Floats = self.top1[number, seed % len(self.seeds)]
            return curve
        drawn: Floats = np.clip(self.predicted[number] + self._noise(number, seed), 0.0, 1.0)
        return drawn

    def seconds_of(self, part: Part, placement: str, seed: int) -> float:
        """Seconds of one whole training; arguments and errors as in `curve`."""
        number = self._number(part, placement)
        if part == "measured":
            return float(self.seconds[number, seed % len(self.seeds)])
        return float(self.predicted_s[number])

    @cached_property
    def _numbers(self) -> dict[Part, dict[str, int]]:
        return {
            part: {text: number for number, text in enumerate(self.texts(part))}
            for part in ("measured", "surrogate")
        }

    def _number(self, part: Part, placement: str) -> int:
        try:
            return self._numbers[part][placement]
        except KeyError:
            remedy = "; give --table-part surrogate" if placement in self.placements else ""
            raise KeyError(
                f"the {part} part of the table has no placement {placement!r}{remedy}"
            ) from None

    @cached_property
    def _residuals(self) -> tuple[Floats, Floats]:
        """Means (P,) ascending, and how trainings differ from them (P, S, E), as of one seed."""
        means = self.top1.mean(axis=1, keepdims=True)
        num_seeds = self.top1.shape[1]
        scale = np.sqrt(num_seeds / max(num_seeds - 1, 1))
        order = np.argsort(means[:, 0, -1], kind="stable")
        return means[order, 0, -1], ((self.top1 - means) * scale)[order]

    def _noise(self, number: int, seed: int) -> Floats:
        """(E,), drawn by placement and seed alone."""
        means, residuals = self._residuals
        num_like = min(NUM_LIKE, len(means))
        place = int(np.searchsorted(means, self.predicted[number, -1]))
        begin = min(max(place - num_like // 2, 0), len(means) - num_like)
        drawn = int(document_key({"placement": self.placements[number], "seed": seed})[:12], 16)
        which, of_seed = divmod(drawn % (num_like * residuals.shape[1]), residuals.shape[1])
        noise: Floats = residuals[begin + which, of_seed]
        return noise

    @classmethod
    def load(cls, path: Path) -> PlacementBench:
        """Read a file.

        Raises:
            InputError: it is not there, not a table, of a later version, or damaged.
        """
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
                about = json.loads(str(archive["about"]))
                if about.pop("format") > FORMAT:
                    raise InputError(f"{path} is of a later version; update sharedattn to read it")
                arrays = {f.name: archive[f.name] for f in fields(cls) if f.name not in _TEXTS}
                placements = tuple(map(str, archive["placements"]))
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{path} is no table of PlacementBench ({error}); give the file that "
                f"benchmarks/placement_pack.py wrote"
            ) from error
        try:
            return cls(about=about, placements=placements, **arrays)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def save(self, path: Path) -> None:
        """Write the table to a file, the same bytes for the same table.

        Raises:
            OSError: it cannot be written.
        """
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _TEXTS}
        about = json.dumps({**self.about, "format": FORMAT}, sort_keys=True)
        file = io.BytesIO()
        np.savez_compressed(
            file, about=np.array(about), placements=np.array(self.placements), **arrays
        )
        atomic_write(path, file.getvalue())

    def _check_shapes(self) -> None:
        num, epochs = len(self.placements), self.top1.shape[-1]
        num_measured, num_seeds = len(self.measured), len(self.about["seeds"])
        for name, shape in (
            ("top1", (num_measured, num_seeds, epochs)),
            ("seconds", (num_measured, num_seeds)),
            ("inherited", (num,)),
            ("predicted", (num, epochs)),
            ("predicted_s", (num,)),
        ):
            found = getattr(self, name).shape
            if found != shape or not all(shape):
                raise InputError(
                    f"`{name}` is of shape {found}, but {num} placements, {num_measured} of them "
                    f"measured with {num_seeds} seeds, make {shape}; pack the table again"
                )
        if len(set(self.placements)) < num or len(set(self.measured.tolist())) < num_measured:
            raise InputError("a placement stands twice in the table; pack it again")
        if not ((0 <= self.measured) & (self.measured < num)).all():
            raise InputError("a measured placement is not among the placements; pack it again")

    def _check_values(self) -> None:
        for number, curves in zip(self.measured, self.top1, strict=True):
            for seed, curve in zip(self.seeds, curves, strict=True):
                if np.isnan(curve).any():
                    raise InputError(
                        f"the training of {self.placements[number]} on seed {seed} is missing; "
                        f"train it with benchmarks/placement_bench.py"
                    )
                if not ((curve >= 0) & (curve <= 1)).all():
                    raise InputError(
                        f"top1 is from 0 to 1, but {self.placements[number]} has "
                        f"{curve[(curve < 0) | (curve > 1)][0]:g} on seed {seed}"
                    )
        if not ((self.predicted >= 0) & (self.predicted <= 1)).all():
            raise InputError("a predicted top1 is not from 0 to 1; pack the table again")
        if not (np.isfinite(self.seconds).all() and np.isfinite(self.predicted_s).all()):
            raise InputError("seconds of a training are not finite; pack the table again")
        if min(self.seconds.min(), self.predicted_s.min()) < 0:
            raise InputError("seconds of a training are below 0; pack the table again")
