"""A search's configuration, with the checks that need neither data nor a machine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from sharedattn.errors import InputError
from sharedattn.search.checks import (
    MAX_COUNT,
    MAX_SEED,
    MAX_WORKERS,
    check_applies,
    check_whole,
    given_options,
    option_of,
)
from sharedattn.search.evaluation import EVALUATIONS, Evaluation, FromScratch
from sharedattn.search.executors.base import TrialResources
from sharedattn.search.paths import StorageConfig
from sharedattn.search.pruners import PRUNERS
from sharedattn.search.searchers import DEFAULT_SEARCHER, searchers
from sharedattn.search.study_name import check_name
from sharedattn.spaces.budget import Budget
from sharedattn.spaces.space import Space

DEFAULT_SPACE = "digit-count-vit"
DEFAULT_TRIALS = 24
DEFAULT_DATA_TRIALS = 12  # on the embedded default, whose trials are longer than others'
DEFAULT_CONFIRM_SEEDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeConfig:
    """Where trials run, and the resources of each.

    Attributes:
        executor: local for worker processes on this machine, in-process for one trial at a time in
            this process, or ray for a cluster.
        address: address of the Ray cluster, or None to start one on this machine.
        num_workers: number of trials at once, or None for as many as the resources allow.
        cpus_per_trial: cores and torch threads of a trial; defaults to an equal share of this
            machine's, or to one on a cluster.
        gpus_per_trial: GPUs of a trial, a fraction to share one; defaults to one if trials train
            on GPUs.
        resources_per_trial: amounts of the cluster's custom resources, by name.
        device: cpu, cuda, or auto.
    """

    executor: Literal["local", "in-process", "ray"] = "local"
    address: str | None = None
    num_workers: int | None = None
    cpus_per_trial: int | None = None
    gpus_per_trial: float | None = None
    resources_per_trial: Mapping[str, float] = field(default_factory=dict)
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        check_whole("--workers", self.num_workers, 1, MAX_WORKERS)
        check_whole("--cpus-per-trial", self.cpus_per_trial, 1, MAX_WORKERS)
        if self.gpus_per_trial is not None or self.resources_per_trial:
            TrialResources(gpus=self.gpus_per_trial or 0.0, custom=self.resources_per_trial)
        of_cluster = ("address", "resources_per_trial")
        check_applies(self, of_cluster, "--executor ray", self.executor == "ray")
        check_applies(self, ("gpus_per_trial",), "--device other than cpu", self.device != "cpu")
        if self.executor == "in-process" and self.num_workers not in (None, 1):
            raise InputError(
                f"`workers` is {self.num_workers}, but one trial at a time runs in this process; "
                f"leave `executor` out for worker processes"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchConfig:
    """The whole configuration of a search.

    Attributes:
        space: a preset's name, a YAML file, or a space.
        evaluation: how to evaluate placements.
        compute: where to run trials.
        storage: where to store results.
        budget: bounds on a placement's closed-form costs.
        max_latency_ms: longest forward pass of a placement in milliseconds, or None for no bound.
        latency_batch_size: number of images in the timed forward pass.
        objectives: names of the objectives, the quality of the space's task first; empty for it
            and MACs.
        searcher: model, tpe, nsga2, stratified, random, or a plug-in's; None: model, or nsga2 if
            that began this study when it was the default.
        prior: name of an earlier study of the database whose accuracies the searcher begins with,
            or None.
        num_trials: total number of search trials; defaults to 24, to 12 on
            the embedded default, or to the supernet's number.
        confirm_seeds: total seeds of each front member; 1 to confirm none, 0 (only with a
            supernet) to train none.
        baselines: `naive` to train what a person would try by hand beside the front, `none` not
            to; defaults to `naive` if trained weights are given.
        seed: seed of proposals and trainings.
        early_stopping: rule that stops trials at rungs, or None.
        rungs: epochs at which trials are judged; empty for the recipe's, else the rule's default.
        deterministic: whether results are independent of the order in which trials finish.
        study: name of the study, or None to derive it from space, data and fingerprint.
    """

    space: str | Space = DEFAULT_SPACE
    evaluation: Evaluation = field(default_factory=FromScratch)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)
    budget: Budget = field(default_factory=Budget)
    max_latency_ms: float | None = None
    latency_batch_size: int = 1
    objectives: tuple[str, ...] = ()
    searcher: str | None = None
    prior: str | None = None
    num_trials: int | None = None
    confirm_seeds: int = DEFAULT_CONFIRM_SEEDS
    baselines: Literal["naive", "none"] | None = None
    seed: int = 0
    early_stopping: str | None = None
    rungs: tuple[int, ...] = ()
    deterministic: bool = False
    study: str | None = None

    @classmethod
    def of(cls, evaluator: str = "scratch", **options: Any) -> SearchConfig:
        """Create the configuration of a search from options.

        Args:
            evaluator: scratch, supernet to score placements with shared weights, table for a
                simulated search, or callable for a function.
            options: values for the fields of the evaluator's `Evaluation`, `ComputeConfig`,
                `StorageConfig` and this class, by name.

        Raises:
            InputError: an option contradicts the others.
        """
        own = EVALUATIONS[evaluator]
        _check_of_evaluator(own, options)
        names = {name for kind in EVALUATIONS.values() for name in kind.options()}
        parts = {
            "evaluation": own(**_taken(options, own.options())),
            "compute": ComputeConfig(**_taken(options, [f.name for f in fields(ComputeConfig)])),
            "storage": StorageConfig(**_taken(options, [f.name for f in fields(StorageConfig)])),
        }
        return cls(**{n: value for n, value in options.items() if n not in names} | parts)

    def __post_init__(self) -> None:
        evaluation = self.evaluation
        check_whole("--trials", self.num_trials, 1, MAX_COUNT)
        check_whole("--confirm-seeds", self.confirm_seeds, evaluation.least_seeds, MAX_COUNT)
        check_whole("--latency-batch-size", self.latency_batch_size, 1, MAX_COUNT)
        # Confirmations use the following seeds.
        check_whole("--seed", self.seed, 0, MAX_SEED - self.confirm_seeds)
        if self.study is not None:
            check_name(self.study)
        for name, why in evaluation.refuses.items():
            if given_options(self, [name]):
                raise InputError(
                    f"--evaluator {evaluation.name} excludes {option_of(name)}, since {why}; "
                    f"leave it out"
                )
        check_applies(self, ("rungs",), "--early-stopping", self.early_stopping is not None)
        check_applies(
            self,
            ("latency_batch_size",),
            "--objectives with latency_ms, or --max-latency-ms",
            self.measures_latency,
        )
        self._check_latency()
        if self.prior is not None and self.prior == self.study:
            raise InputError(
                f"`--prior` is {self.prior!r}, which is this study itself; name an earlier one"
            )
        if self.baselines == "naive" and self.confirm_seeds == 0:
            raise InputError(
                "--baselines naive requires --confirm-seeds of at least 1, since baselines are "
                "compared with trained members; raise it, or leave --baselines out"
            )
        evaluation.check(self)
        for what, chosen, known in (
            ("--searcher", self.searcher, list(searchers())),
            ("--early-stopping", self.early_stopping, list(PRUNERS)),
        ):
            if chosen is not None and chosen not in known:
                raise InputError(f"`{what}` is one of {', '.join(known)}, but got {chosen!r}")
        able = [name for name, searcher in searchers().items() if searcher.uses_prior]
        asked = f"--searcher {' or '.join(able)}"
        check_applies(self, ("prior",), asked, (self.searcher or DEFAULT_SEARCHER) in able)

    @property
    def trains_baselines(self) -> bool:
        """Whether networks made by hand are trained beside the front."""
        if self.baselines is None:
            return self.evaluation.starts_from_weights and self.confirm_seeds > 0
        return self.baselines == "naive"

    @property
    def measures_latency(self) -> bool:
        """Whether latency is an objective or bounded."""
        return "latency_ms" in self.objectives or self.max_latency_ms is not None

    def _check_latency(self) -> None:
        bound = self.max_latency_ms
        if bound is not None and not (math.isfinite(bound) and bound > 0):
            raise InputError(f"`--max-latency-ms` is a number above 0, but got {bound:g}")
        if not self.measures_latency:
            return
        for option, why in (
            (
                "--executor ray",
                "its trials never leave a device in peace"
                if self.compute.executor == "ray"
                else None,
            ),
            (f"--evaluator {self.evaluation.name}", self.evaluation.no_latency),
        ):
            if why is not None:
                raise InputError(
                    f"{option} excludes latencies, since {why}; leave it out, or latency_ms and "
                    f"--max-latency-ms"
                )


def _taken(options: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Remove and return the options with these names."""
    return {name: options.pop(name) for name in names if name in options}


def _check_of_evaluator(own: type[Evaluation], options: Mapping[str, Any]) -> None:
    """Check that no option belongs to another evaluator.

    Raises:
        InputError: one does; the message names the evaluators that take it.
    """
    for kind in EVALUATIONS.values():
        foreign = set(kind.options()) - set(own.options())
        given = kind(**{name: options[name] for name in foreign & options.keys()})
        if useless := given_options(given, foreign):
            owners = [k.name for k in EVALUATIONS.values() if set(k.options()) & foreign]
            raise InputError(
                f"{', '.join(useless)} requires --evaluator {' or '.join(owners)}, but got "
                f"--evaluator {own.name}; leave it out"
            )
