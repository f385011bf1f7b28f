"""The front of a study, and its members."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharedattn.errors import InputError
from sharedattn.networks.network import Network
from sharedattn.objectives import Objective, shown_costs
from sharedattn.placement import NetworkSpec, Placement
from sharedattn.results.artifacts.weights import WeightsStore
from sharedattn.results.database.store import Store
from sharedattn.results.export.folder import rebuild
from sharedattn.results.front.confirmation import Candidate
from sharedattn.results.front.summary import (
    StudySummary,
    comparison_lines,
    front_document,
    start_lines,
)
from sharedattn.search.jobs.export import export_placement
from sharedattn.units import format_fraction

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, slots=True)
class Stored:
    """A study as read from its database.

    Attributes:
        url: URL of the database.
        summary: the study with its trials.
        weights: store of its weights, or None if it trains nothing.
    """

    url: str
    summary: StudySummary
    weights: WeightsStore | None

    def open(self) -> Store:
        """Open the database for reading."""
        return Store.open(self.url, read_only=True)


@dataclass(frozen=True, slots=True)
class Member:
    """A placement that a study has evaluated.

    Attributes:
        stored: its study.
        candidate: its evaluations.
    """

    stored: Stored
    candidate: Candidate

    @property
    def id(self) -> int:
        """Number of the first search trial that evaluated it."""
        return self.candidate.number

    @property
    def placement(self) -> Placement:
        """The placement."""
        return Placement.parse(self.candidate.placement)

    @property
    def top1(self) -> float:
        """Mean accuracy over seeds, a fraction."""
        return self.candidate.top1

    @property
    def costs(self) -> Mapping[str, float]:
        """Costs by name: MACs and params per image, and other costs that the study knows."""
        return self.candidate.costs

    @property
    def network(self) -> NetworkSpec:
        """The network's spec, for `build` and `cost`."""
        with self.stored.open() as store:
            return NetworkSpec.from_json(store.spec(self.candidate.spec_key).document)

    def load(self) -> Network:
        """Load the network with the weights of its best seed, in eval mode on the CPU.

        Raises:
            InputError: its weights were not kept.
        """
        run, weights = self.candidate.best_run, self.stored.weights
        key, sha256 = run.evaluation_key, run.weights_sha256
        if weights is None or key is None or sha256 is None:
            raise InputError(
                f"trial {self.id} has no weights, since its evaluator keeps none; `build` gives "
                f"the network without them"
            )
        if not weights.has(key, sha256):
            raise InputError(
                f"the weights of trial {self.id} are not at {weights.shown(key, sha256)}, since "
                f"only those of the front's members are kept; `export` trains it again"
            )
        return rebuild(self.network, weights.load(key, sha256))

    def export(self, folder: str | Path, *, onnx: bool = False, device: str = "cpu") -> Path:
        """Export it as a folder; a member whose weights were not kept is trained again.

        Args:
            folder: the folder; an existing export is replaced.
            onnx: whether to also write model.onnx, which needs the extra `onnx`.
            device: device for training it again.

        Raises:
            InputError: the folder cannot be written, or the study trains nothing.
        """
        if self.stored.weights is None:
            raise InputError("an export has trained weights, and this study trains nothing")
        with self.stored.open() as store:
            export_placement(
                store,
                self.stored.summary,
                str(self.id),
                Path(folder),
                weights=self.stored.weights,
                onnx=onnx,
                device=device,
            )
        return Path(folder)

    def __repr__(self) -> str:
        return f"<Member {self.id}: {self.placement}, top1 {self.top1:.3f}>"


@dataclass(frozen=True)
class Front:
    """The members of a study that no other dominates, from the cheapest to the most expensive.

    Attributes:
        stored: the study.
    """

    stored: Stored

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """The members, from the cheapest to the most expensive."""
        return tuple(Member(self.stored, one) for one in self.stored.summary.front.members)

    @property
    def is_confirmed(self) -> bool:
        """Whether every member has all its seeds."""
        return self.stored.summary.front.is_confirmed

    @property
    def hypervolume(self) -> float:
        """Hypervolume as a fraction of the box to the study's reference point."""
        return self.stored.summary.hypervolume

    @cached_property
    def _costs(self) -> tuple[Objective, ...]:
        """The costs in tables of the front."""
        known = {name for member in self.members for name in member.costs}
        return shown_costs(self.stored.summary.objectives, known)

    def to_document(self) -> dict[str, Any]:
        """The document that `sharedattn front --json` prints."""
        return front_document(self.stored.summary)

    def to_dataframe(self) -> pandas.DataFrame:
        """The members as rows: id, placement, top1 and its standard error, costs, seeds.

        Raises:
            InputError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise InputError(
                "`to_dataframe` requires pandas; pip install 'sharedattn[notebook]'"
            ) from None
        quality = self.stored.summary.study.record.quality
        names = ["id", "placement", quality, f"{quality}_standard_error"]
        names += [cost.name for cost in self._costs]
        return pandas.DataFrame(self.to_document()["front"], columns=[*names, "seeds"])

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members)

    def __repr__(self) -> str:
        study = self.stored.summary.study.record.name
        return f"<Front of {study}: {len(self)} members, hypervolume {self.hypervolume:.4f}>"

    def _repr_html_(self) -> str:
        costs = self._costs
        quality = self.stored.summary.objectives[0]
        heads = ["id", "placement", quality.heading, *(cost.heading for cost in costs), "seeds"]
        rows = [
            [
                str(member.id),
                str(member.placement),
                format_fraction(member.top1, member.candidate.top1_standard_error),
                *(cost.unit.format(member.costs[cost.name]) for cost in costs),
                str(len(member.candidate.runs)),
            ]
            for member in self.members
        ]
        head = "".join(f"<th>{escape(text)}</th>" for text in heads)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows
        )
        state = "confirmed" if self.is_confirmed else "not confirmed"
        start = "".join(f"<p>{escape(line)}</p>" for line in start_lines(self.stored.summary))
        by_hand = "".join(
            f"<p>{escape(line)}</p>" for line in comparison_lines(self.stored.summary)
        )
        return (
            f"{start}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"<p>{state}; hypervolume {self.hypervolume:.4f}</p>{by_hand}"
        )
