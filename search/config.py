"""What a search is asked to do, checked as far as that needs neither data nor a machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from sharedattn.errors import InputError
from sharedattn.search.data_plan import DEFAULT_DATA, DataOptions
from sharedattn.search.evaluation import EVALUATIONS, Evaluation
from sharedattn.search.evaluators.base import Evaluator
from sharedattn.search.executors.base import TrialResources
from sharedattn.search.pruners import PRUNERS
from sharedattn.search.searchers import searchers
from sharedattn.search.study_name import check_name
from sharedattn.spaces.budget import Budget
from sharedattn.spaces.space import Space

DEFAULT_SPACE = "digit-pairs-vit"
DEFAULT_TRIALS = 24
DEFAULT_CONFIRM_SEEDS = 3
MAX_COUNT = 2**31 - 1
"""The most that the database holds of a number of trials, seeds or images."""
MAX_SEED = 2**63 - 1
"""The largest seed that the database holds; torch and numpy take it as well."""
MAX_WORKERS = 100_000
"""More than any machine or cluster could run, and few enough to keep account of."""


def check_whole(option: str, value: int, least: int, most: int) -> None:
    """Refuse a number that is too small, or too large for what keeps it.

    Args:
        option: names it in the message.
        value: the number.
        least: that is allowed.
        most: that is allowed.

    Raises:
        InputError: a number outside.
    """
    if not least <= value <= most:
        raise InputError(f"`{option}` is a whole number from {least} to {most}, but got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchConfig:
    """Everything that a search is asked to do.

    Attributes:
        space: a preset's name, a YAML file, or a space.
        data: `digit-pairs`, a folder, or a name that timm opens.
        data_root: folder that holds a named data set.
        data_options: what else is asked of data on disk.
        recipe: a recipe's name or a YAML file; None: the data's own.
        epochs: epochs of a trial in place of the recipe's.
        budget: what a placement may cost, of what is known in closed form.
        max_latency_ms: milliseconds that a forward of a placement may take; None: no bound.
        latency_batch_size: images of the forward whose time is the latency.
        objectives: names, top1 among them.
        searcher: nsga2, tpe or random.
        evaluator: scratch, supernet to score placements by shared weights, table for a
            simulated search, or callable for a function.
        supernet_recipe: a supernet's recipe's name or a YAML file; None: the data's own.
        supernet_epochs: epochs of the supernet in place of its recipe's.
        weights: file or exported folder of a trained model, or `timm`, which a supernet starts
            from; None: from its initialisation.
        front_training: how the members of a supernet's front are trained by themselves:
            fine-tune, each from its share of the supernet's weights; or retrain, from scratch.
        table: the table's file.
        function: what a callable evaluator calls, see `FromCallable`.
        num_trials: search trials, a total; None: 24, or as many as a supernet scores.
        confirm_seeds: seeds of each front member, a total; 1: none is confirmed; 0, with a
            supernet alone: none is trained.
        val_fraction: share of train that is cut off where the data has no validation split;
            None: a tenth.
        seed: of proposals and trainings.
        num_workers: trials at once; None: as many as fit the machine or the cluster.
        executor: local, worker processes of this machine; in-process, one trial at a time in this
            process; or ray, a cluster.
        address: of the Ray cluster; None: one is started on this machine.
        cpus_per_trial: cores and torch threads of a trial; None: this machine's shared among the
            workers, or one on a cluster.
        gpus_per_trial: GPUs of a trial, a fraction to share one; None: one where it trains on
            GPUs.
        processes_per_trial: processes that train a placement together; None: one a GPU.
        resources_per_trial: amounts of the cluster's own resources, by name.
        early_stopping: rule by which trials are stopped at rungs; None: none is.
        rungs: epochs at which trials are judged; empty: the recipe's, else the rule's own.
        deterministic: whether the order of completion must not matter.
        device: cpu, cuda, or auto.
        study: the study's name; None: made of space, data and fingerprint.
        storage: the database's URL; None: an SQLite file in `out`.
        out: folder of the database, weights, reports and exports.
        weights_dir: folder or URL of weights and checkpoints; None: beside the database.
    """

    space: str | Space = DEFAULT_SPACE
    data: str = DEFAULT_DATA
    data_root: str | None = None
    data_options: DataOptions = field(default_factory=DataOptions)
    recipe: str | None = None
    epochs: int | None = None
    budget: Budget = field(default_factory=Budget)
    max_latency_ms: float | None = None
    latency_batch_size: int = 1
    objectives: tuple[str, ...] = ("top1", "macs")
    searcher: str = "nsga2"
    evaluator: Literal["scratch", "supernet", "table", "callable"] = "scratch"
    supernet_recipe: str | None = None
    supernet_epochs: int | None = None
    weights: str | None = None
    front_training: Literal["fine-tune", "retrain"] = "fine-tune"
    table: Path | None = None
    function: Callable[..., Any] | Evaluator | None = None
    num_trials: int | None = None
    confirm_seeds: int = DEFAULT_CONFIRM_SEEDS
    val_fraction: float | None = None
    seed: int = 0
    num_workers: int | None = None
    executor: Literal["local", "in-process", "ray"] = "local"
    address: str | None = None
    cpus_per_trial: int | None = None
    gpus_per_trial: float | None = None
    processes_per_trial: int | None = None
    resources_per_trial: Mapping[str, float] = field(default_factory=dict)
    early_stopping: str | None = None
    rungs: tuple[int, ...] = ()
    deterministic: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    study: str | None = None
    storage: str | None = None
    out: Path = Path("sharedattn-out")
    weights_dir: str | None = None

    def __post_init__(self) -> None:
        evaluation = self.evaluation
        for option, value, least, most in (
            ("--trials", self.num_trials, 1, MAX_COUNT),
            ("--confirm-seeds", self.confirm_seeds, evaluation.least_seeds, MAX_COUNT),
            ("--supernet-epochs", self.supernet_epochs, 1, MAX_COUNT),
            ("--latency-batch-size", self.latency_batch_size, 1, MAX_COUNT),
            ("--workers", self.num_workers, 1, MAX_WORKERS),
            ("--cpus-per-trial", self.cpus_per_trial, 1, MAX_WORKERS),
            ("--processes-per-trial", self.processes_per_trial, 1, MAX_WORKERS),
        ):
            if value is not None:
                check_whole(option, value, least, most)
        if self.gpus_per_trial is not None or self.resources_per_trial:
            TrialResources(gpus=self.gpus_per_trial or 0.0, custom=self.resources_per_trial)
        # Its confirmations have the seeds that follow.
        check_whole("--seed", self.seed, 0, MAX_SEED - self.confirm_seeds)
        if self.study is not None:
            check_name(self.study)
        self._check_options_apply()
        self._check_latency()
        evaluation.check(self)
        for what, chosen, known in (
            ("--searcher", self.searcher, list(searchers())),
            ("--early-stopping", self.early_stopping, list(PRUNERS)),
        ):
            if chosen is not None and chosen not in known:
                raise InputError(f"`{what}` is one of {', '.join(known)}, but got {chosen!r}")

    @property
    def evaluation(self) -> Evaluation:
        """The way of evaluating that the options describe."""
        return EVALUATIONS[self.evaluator].of(self)

    @property
    def measures_latency(self) -> bool:
        """Whether latencies are an objective, or bounded."""
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
                "its trials never leave a device in peace" if self.executor == "ray" else None,
            ),
            (f"--evaluator {self.evaluator}", self.evaluation.no_latency),
        ):
            if why is not None:
                raise InputError(
                    f"{option} excludes latencies, since {why}; leave it out, or latency_ms and "
                    f"--max-latency-ms"
                )

    def _check_options_apply(self) -> None:
        """Refuse options that the other options leave without a meaning."""
        for kind in EVALUATIONS.values():
            foreign = set(kind.options()) - set(self.evaluation.options())
            if useless := self._given(foreign):
                owners = [k.name for k in EVALUATIONS.values() if set(k.options()) & foreign]
                raise InputError(
                    f"{', '.join(useless)} requires --evaluator {' or '.join(owners)}, but got "
                    f"--evaluator {self.evaluator}; leave it out"
                )
        for name, why in self.evaluation.refuses.items():
            if self._given([name]):
                raise InputError(
                    f"--evaluator {self.evaluator} excludes {_option(name)}, since {why}; leave "
                    f"it out"
                )
        for names, required, is_met in (
            (("data_root", "val_fraction"), "--data", self.data != DEFAULT_DATA),
            (("address", "resources_per_trial"), "--executor ray", self.executor == "ray"),
            (
                ("latency_batch_size",),
                "--objectives with latency_ms, or --max-latency-ms",
                self.measures_latency,
            ),
            (("rungs",), "--early-stopping", self.early_stopping is not None),
            (("gpus_per_trial",), "--device other than cpu", self.device != "cpu"),
        ):
            useless = [] if is_met else self._given(names)
            if useless:
                raise InputError(
                    f"{', '.join(useless)} requires {required}; leave out {', '.join(useless)}"
                )
        if self.executor == "in-process" and self.num_workers not in (None, 1):
            raise InputError(
                f"`workers` is {self.num_workers}, but one trial at a time runs in this process; "
                f"leave `executor` out for worker processes"
            )

    def _given(self, names: Iterable[str]) -> list[str]:
        """Those of some fields that are not at their defaults, as the command line has them."""
        defaults = {f.name: f for f in fields(self)}
        given = []
        for name in sorted(names):
            value, default = getattr(self, name), defaults[name].default
            if default is MISSING:
                factory = defaults[name].default_factory
                assert factory is not MISSING
                default = factory()
            if isinstance(value, DataOptions):
                given += value.given()
            elif value != default and not (name == "gpus_per_trial" and not value):
                given.append(_option(name))
        return given


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
