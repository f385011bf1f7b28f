"""What a study says of its space, from the model that `--searcher model` proposes by.

All of it is posterior: means and 90 % credible intervals of sums of accuracies, see
`sharedattn.results.explanation.contrasts` for the sums and
`sharedattn.results.accuracy_model.posterior` for the model. Where the data cannot say, a verdict
says so in place of figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm  # type: ignore[import-untyped]

from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.placement import Placement
from sharedattn.results.accuracy_model.fitting import kept_rows
from sharedattn.results.accuracy_model.posterior import AccuracyPosterior, mixture
from sharedattn.results.accuracy_model.scores import scores_of
from sharedattn.results.explanation.contrasts import Contrast, SpaceContrasts, Topic
from sharedattn.results.explanation.observations import Observations, observations_of
from sharedattn.results.front.pareto import non_dominated
from sharedattn.results.front.summary import StudySummary
from sharedattn.results.records import Document
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.encoding import Encoding
from sharedattn.spaces.space import Space
from sharedattn.spaces.variation import Variation

FloatArray = NDArray[np.float64]

LEAST_PLACEMENTS = 12
"""Different placements with an accuracy that an explanation needs, as many as the embedded search
has trials by default."""
LEVEL = 0.9  # of credible intervals
NEGLIGIBLE = 0.005
"""An effect whose whole interval is within this of 0 is as good as none: half a point."""
MAX_STARTS = 12  # members of the front from which the next point is priced
LEAST_EDIT = 0.02
"""Of the space's range of MACs, the least that an edit costs which has a price: a nearly free one
is a question of what it is worth, not of where to pay."""


class Verdict(StrEnum):
    """What can be said of an effect.

    CLEAR: its interval is on one side of 0. NEGLIGIBLE: its interval is within half a point of 0.
    OPEN: the data cannot say. UNSEEN: it never varied among the trials. TIED: members of equal
    MACs do not differ in it, or too few do.
    """

    CLEAR = "clear"
    NEGLIGIBLE = "negligible"
    OPEN = "open"
    UNSEEN = "unseen"
    TIED = "tied"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A posterior mean with its credible interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What one more of something is worth at equal MACs.

    Attributes:
        topic: what it is about.
        stage: the stage, from 0.
        text: what one more of it is.
        letter: the kind's letter, of an effect of a kind.
        position: the layer in its stage, from 0, of a layer's effect.
        verdict: what can be said.
        top1: the difference of accuracy, a fraction; None if unseen or tied.
    """

    topic: Topic
    stage: int
    text: str
    letter: str | None
    position: int | None
    verdict: Verdict
    top1: Estimate | None

    def to_json(self) -> Document:
        """A plain dictionary; stages and layers are counted from 1."""
        return {
            **asdict(self),
            "topic": self.topic.value,
            "verdict": self.verdict.value,
            "stage": self.stage + 1,
            "position": None if self.position is None else self.position + 1,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What the next point of accuracy costs if it is paid for in one stage.

    From each of the front's members, the edit of this stage alone is taken that costs more MACs
    and is expected to gain most per MAC. Gains and MACs are means over these edits.

    Attributes:
        stage: the stage, from 0.
        num_edits: number of members that have such an edit.
        macs: the edits' additional MACs.
        top1: what they gain, a fraction.
        verdict: CLEAR if the gain's interval is above 0.
        example: the edit of the middle member: the placement, and what it becomes.
    """

    stage: int
    num_edits: int
    macs: float
    top1: Estimate
    verdict: Verdict
    example: tuple[str, str]

    @property
    def macs_per_point(self) -> Estimate | None:
        """MACs for 0.01 of accuracy; None unless the gain is clear."""
        if self.verdict is not Verdict.CLEAR:
            return None
        gains = (self.top1.mean, self.top1.high, self.top1.low)
        return Estimate(*(0.01 * self.macs / gain for gain in gains))

    def to_json(self) -> Document:
        """A plain dictionary; stages are counted from 1."""
        price = self.macs_per_point
        return {
            **asdict(self),
            "verdict": self.verdict.value,
            "stage": self.stage + 1,
            "example": list(self.example),
            "macs_per_point": None if price is None else asdict(price),
        }


@dataclass(frozen=True, slots=True)
class Predicted:
    """A placement of the predicted front.

    Attributes:
        placement: its text.
        macs: per image.
        top1: its accuracy without a training's noise.
        tried: whether the study has trained it.
    """

    placement: str
    macs: float
    top1: Estimate
    tried: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a study says of its space.

    Attributes:
        study: the study's name.
        what: what the accuracies are of.
        num_trainings: number of trainings that it is learned from.
        num_placements: number of different placements among them.
        noise: standard deviation of a training's accuracy by its seed.
        left_out_error: root mean square difference between trainings and what the others predict.
        spread: standard deviation of the trainings' accuracies.
        num_stages: number of the backbone's stages.
        effects: what one more of each thing is worth.
        layers: what each kind is worth in each layer.
        interactions: those that stand out, the largest first; their intervals hold for all asked
            at once.
        num_interactions: number of interactions asked.
        prices: of the next point of accuracy, by stage.
        front: the predicted front, by MACs.
    """

    study: str
    what: str
    num_trainings: int
    num_placements: int
    noise: float
    left_out_error: float
    spread: float
    num_stages: int
    effects: tuple[Effect, ...]
    layers: tuple[Effect, ...]
    interactions: tuple[Effect, ...]
    num_interactions: int
    prices: tuple[Price, ...]
    front: tuple[Predicted, ...]

    def to_json(self) -> Document:
        """The document that `sharedattn explain --json` prints."""
        return {
            "study": self.study,
            "of": self.what,
            "trainings": self.num_trainings,
            "placements": self.num_placements,
            "noise": self.noise,
            "left_out_error": self.left_out_error,
            "spread": self.spread,
            "level": LEVEL,
            "effects": [effect.to_json() for effect in self.effects],
            "layers": [effect.to_json() for effect in self.layers],
            "interactions": {
                "asked": self.num_interactions,
                "stand_out": [effect.to_json() for effect in self.interactions],
            },
            "prices": [price.to_json() for price in self.prices],
            "front": [asdict(one) for one in self.front],
        }


def explain(summary: StudySummary) -> Explanation:
    """Explain a study.

    Raises:
        InputError: it has too few different placements with an accuracy; the message says how many
            more trials it needs. Or its space cannot be read here.
    """
    record = summary.study.record
    observations = observations_of(summary)
    missing = LEAST_PLACEMENTS - observations.num_placements
    if missing > 0:
        raise InputError(
            f"study {record.name!r} has {observations.num_placements} different placements with "
            f"an accuracy, and an explanation needs {LEAST_PLACEMENTS}; it needs {missing} more "
            f"trial{'s' if missing > 1 else ''}: go on with its search, with a larger "
            f"--trials"
        )
    fingerprint = record.fingerprint_document
    budget = Budget.from_document(fingerprint) if "max_macs" in fingerprint else Budget()
    space = BudgetedSpace(Space.from_document(record.space), budget)
    front = [Placement.parse(member.placement) for member in summary.front.members]
    return Explainer(space, observations).explanation(record.name, front)


class Explainer:
    """Answers a space's questions by some trainings.

    Args:
        space: the legal placements inside the budget.
        observations: trainings of one fidelity, of at least two placements.
        contrasts: the space's questions; defaults to `SpaceContrasts(space)`.
    """

    def __init__(
        self,
        space: BudgetedSpace,
        observations: Observations,
        contrasts: SpaceContrasts | None = None,
    ) -> None:
        self._space = space
        self._observations = observations
        self._contrasts = contrasts or SpaceContrasts(space)
        self._costs = CostModel(space.space.backbone)
        top1 = np.array(observations.top1)
        kept = kept_rows(np.column_stack([scores_of(top1), observations.macs]))
        self._tried = [Placement.parse(observations.placements[i]) for i in kept]
        self._top1 = top1[kept]
        features = self._contrasts.features
        self._raw = features.raw(self._tried)
        self.posterior = AccuracyPosterior.of(
            features.groups, features.scaled(self._raw), self._top1
        )

    def explanation(self, study: str, front: Sequence[Placement]) -> Explanation:
        """All answers.

        Args:
            study: the study's name.
            front: its front, by MACs.
        """
        contrasts, edits = self._contrasts, self.edits(front)
        questions = (*contrasts.main, *contrasts.layers, *contrasts.interactions)
        answers = list(zip(questions, *self._answers(questions), strict=True))
        main, answers = answers[: len(contrasts.main)], answers[len(contrasts.main) :]
        layers, interactions = answers[: len(contrasts.layers)], answers[len(contrasts.layers) :]
        asked = [one for one in interactions if self._varies(one[0])]
        observations = self._observations
        return Explanation(
            study=study,
            what=observations.what,
            num_trainings=len(observations.top1),
            num_placements=observations.num_placements,
            noise=self.posterior.noise,
            left_out_error=float(np.sqrt(np.mean((self._left_out - self._top1) ** 2))),
            spread=float(self._top1.std()),
            num_stages=contrasts.num_stages,
            effects=tuple(self._effect(*one) for one in main),
            layers=tuple(self._effect(*one) for one in layers),
            interactions=self._standing_out(asked),
            num_interactions=len(asked),
            prices=self._prices(edits),
            front=self._front([after for pairs in edits.values() for _, after in pairs]),
        )

    def _answers(self, asked: Sequence[Contrast]) -> tuple[FloatArray, FloatArray]:
        """Posterior mean and standard deviation, each (k,), of k questions."""
        contrasts = self._contrasts
        every = np.array([one.weights for one in asked if one.weights is not None])
        fewer = np.array([one.fewer for one in asked if one.fewer is not None])
        means, sds = np.zeros((2, len(asked)))
        if len(every):
            top1 = self._expected
            by_members = contrasts.sampling_variance(every, top1.mean(axis=0))
            scaled = contrasts.features.scaled(contrasts.fewer.raw)
            variances = self.posterior.variance(scaled, fewer) + by_members
            answered = np.array([one.weights is not None for one in asked])
            means[answered], sds[answered] = mixture(top1 @ every.T, variances)
        return means, sds

    @property
    def _left_out(self) -> FloatArray:
        """The accuracy (n,) of each training as those of other placements predict it."""
        rows: dict[Placement, list[int]] = {}
        for row, placement in enumerate(self._tried):
            rows.setdefault(placement, []).append(row)
        return self.posterior.left_out([np.array(block) for block in rows.values()])

    @cached_property
    def _expected(self) -> FloatArray:
        """The expected accuracy (d, m) of the space's members."""
        contrasts = self._contrasts
        return self.posterior.expect(contrasts.features.scaled(contrasts.every.raw))

    def _varies(self, question: Contrast) -> bool:
        return bool(np.ptp(question.count(self._raw)) > 0.0)

    def _effect(self, question: Contrast, mean: float, sd: float, level: float = LEVEL) -> Effect:
        found = _estimate(mean, sd, level)
        if question.weights is None:
            verdict = Verdict.TIED
        elif not self._varies(question):
            verdict = Verdict.UNSEEN
        else:
            verdict = _verdict(found)
        return Effect(
            topic=question.topic,
            stage=question.stage,
            text=question.text,
            letter=question.letter,
            position=question.position,
            verdict=verdict,
            top1=None if verdict in (Verdict.TIED, Verdict.UNSEEN) else found,
        )

    def _standing_out(self, asked: Sequence[tuple[Contrast, float, float]]) -> tuple[Effect, ...]:
        """The clear interactions of many, by intervals that hold for all at once (Bonferroni)."""
        level = 1.0 - (1.0 - LEVEL) / max(len(asked), 1)
        found = [self._effect(*one, level) for one in asked]
        clear = [effect for effect in found if effect.verdict is Verdict.CLEAR]
        return tuple(sorted(clear, key=lambda e: -abs(e.top1.mean if e.top1 is not None else 0.0)))

    def edits(self, front: Sequence[Placement]) -> dict[int, list[tuple[Placement, Placement]]]:
        """Of each stage, the edit of most expected gain per MAC from each member of the front."""
        variation = Variation(Encoding(self._space))
        low, high = self._space.macs_range_in_budget
        least = LEAST_EDIT * (high - low)
        step = -(-len(front) // MAX_STARTS) or 1
        found: dict[int, list[tuple[Placement, Placement]]] = {}
        for member in front[::step]:
            if member not in self._space:
                continue
            macs = self._macs(member)
            others = [o for o in variation.neighbours(member) if self._macs(o) - macs >= least]
            if not others:
                continue
            features = self._contrasts.features.of([member, *others])
            top1 = self.posterior.expect(features).mean(axis=0)
            best: dict[int, tuple[float, Placement]] = {}
            for other, gain in zip(others, top1[1:] - top1[0], strict=True):
                stage = _changed_stage(member, other)
                rate = float(gain) / (self._macs(other) - macs)
                if stage not in best or rate > best[stage][0]:
                    best[stage] = rate, other
            for stage, (_, other) in best.items():
                found.setdefault(stage, []).append((member, other))
        return dict(sorted(found.items()))

    def _prices(
        self,
        edits: Mapping[int, Sequence[tuple[Placement, Placement]]],
    ) -> tuple[Price, ...]:
        prices = []
        for stage, pairs in edits.items():
            features = self._contrasts.features.of([one for pair in pairs for one in pair])
            weights = np.tile([-1.0, 1.0], (1, len(pairs))) / len(pairs)
            means = self.posterior.expect(features) @ weights.T
            mean, sd = mixture(means, self.posterior.variance(features, weights))
            top1 = _estimate(float(mean[0]), float(sd[0]), LEVEL)
            before, after = pairs[len(pairs) // 2]
            prices.append(
                Price(
                    stage=stage,
                    num_edits=len(pairs),
                    macs=float(np.mean([self._macs(b) - self._macs(a) for a, b in pairs])),
                    top1=top1,
                    verdict=Verdict.CLEAR if top1.low > 0.0 else Verdict.OPEN,
                    example=(str(before), str(after)),
                )
            )
        return tuple(prices)

    def _front(self, others: Sequence[Placement]) -> tuple[Predicted, ...]:
        """The predicted front among the members asked about, the tried ones and `others`."""
        # Of many observations the model keeps some, but all were tried.
        tried = set(map(Placement.parse, set(self._observations.placements)))
        placements = list(dict.fromkeys([*self._tried, *others, *self._contrasts.members]))
        mean, sd = self.posterior.predict(self._contrasts.features.of(placements))
        macs = np.array([self._macs(placement) for placement in placements])
        members = np.flatnonzero(non_dominated(np.column_stack([-mean, macs])))
        return tuple(
            Predicted(
                str(placements[i]),
                macs[i],
                _estimate(mean[i], sd[i], LEVEL),
                placements[i] in tried,
            )
            for i in sorted(members, key=lambda i: macs[i])
        )

    @cached_property
    def _known_macs(self) -> dict[Placement, float]:
        contrasts = self._contrasts
        return dict(zip(contrasts.members, contrasts.every.macs.tolist(), strict=True))

    def _macs(self, placement: Placement) -> float:
        found = self._known_macs.get(placement)
        return float(self._costs.totals(placement).macs) if found is None else found


def _estimate(mean: float, sd: float, level: float) -> Estimate:
    half = float(norm.ppf(0.5 + 0.5 * level)) * float(sd)
    return Estimate(float(mean), float(mean) - half, float(mean) + half)


def _verdict(found: Estimate) -> Verdict:
    if found.low > 0.0 or found.high < 0.0:
        return Verdict.CLEAR
    if -NEGLIGIBLE <= found.low and found.high <= NEGLIGIBLE:
        return Verdict.NEGLIGIBLE
    return Verdict.OPEN


def _changed_stage(one: Placement, other: Placement) -> int:
    pairs = zip(one.stages, other.stages, strict=True)
    return next(stage for stage, (before, after) in enumerate(pairs) if before != after)
