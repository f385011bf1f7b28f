"""Studies for scripts and notebooks: run, resume, read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure

from sharedattn.costs.model import CONVENTION
from sharedattn.errors import InputError
from sharedattn.results.database.engine import parse_url, sqlite_file, sqlite_url
from sharedattn.results.database.store import Store
from sharedattn.results.explanation.explanation import Explanation, explain
from sharedattn.results.front.plot import plot_front
from sharedattn.results.front.summary import StudySummary
from sharedattn.results.records import TrialRole
from sharedattn.results.report import write_report
from sharedattn.search.api.front import Front, Member, Stored
from sharedattn.search.api.places import InProcess, Place, WorkerProcesses
from sharedattn.search.api.progress import watcher
from sharedattn.search.api.space import Space
from sharedattn.search.cli.printing import print_start, progress_console
from sharedattn.search.config import DEFAULT_CONFIRM_SEEDS, ComputeConfig, SearchConfig
from sharedattn.search.evaluation import Evaluation, FromCallable, FromScratch
from sharedattn.search.evaluators.base import Evaluator
from sharedattn.search.paths import StorageConfig
from sharedattn.search.run import prepare, run_search
from sharedattn.search.status import Progress
from sharedattn.spaces.space import Space as DeclaredSpace

DEFAULT_FOLDER = "sharedattn-out"


class Study:
    """One search over one space, stored in a database; stored trials are not run again.

    Args:
        space: a `Space`, a preset's name or a YAML file.
        evaluator: how placements are evaluated: `FromScratch`, `FromSupernet`, `FromTable`, or a
            callable that takes the built network (or the placement, if its parameter is named
            `placement`) and returns metrics by name, such as {"top1": 0.7}.
        searcher: model, tpe, nsga2, stratified, random, or a plug-in's; defaults to model.
        prior: name of an earlier study of the database whose accuracies the searcher `model`
            begins with, or None.
        storage: path or URL of the database; defaults to a file in `out`.
        name: the study's name; by default it is made of space, data and the other choices that
            identify the study.
        objectives: names of the objectives, the quality first (top1 of classifiers); empty for it
            and MACs.
        seed: seed of proposals and trainings.
        confirm_seeds: number of seeds of each front member.
        early_stopping: name of the rule that stops trials at rungs, or None to stop none.
        rungs: epochs at which trials are judged; defaults to the recipe's, or else the rule's.
        max_latency_ms: bound on a placement's latency in milliseconds, or None for no bound.
        latency_batch_size: batch size of latency measurements.
        deterministic: whether results must not depend on the order of completion.
        device: cpu, cuda, or auto.
        out: folder of reports; defaults to the folder of a database file, or else
            `sharedattn-out`.

    Raises:
        InputError: an invalid argument, or a combination of arguments that is not supported.
    """

    def __init__(
        self,
        space: Space | DeclaredSpace | str | Path,
        evaluator: Evaluation | Evaluator | Callable[..., Any] | None = None,
        *,
        searcher: str | None = None,
        prior: str | None = None,
        storage: str | Path | None = None,
        name: str | None = None,
        objectives: Sequence[str] = (),
        seed: int = 0,
        confirm_seeds: int = DEFAULT_CONFIRM_SEEDS,
        early_stopping: str | None = None,
        rungs: Sequence[int] = (),
        max_latency_ms: float | None = None,
        latency_batch_size: int = 1,
        deterministic: bool = False,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        out: str | Path | None = None,
    ) -> None:
        self.space = _space(space)
        evaluation = evaluator
        if evaluation is None:
            evaluation = FromScratch()
        elif not isinstance(evaluation, Evaluation):
            evaluation = FromCallable(evaluation)
        url, folder = _places(storage, out)
        self._config = SearchConfig(
            space=self.space.declared,
            evaluation=evaluation,
            compute=ComputeConfig(executor="in-process", device=device),
            storage=StorageConfig(storage=url, out=folder),
            budget=self.space.budget,
            searcher=searcher,
            prior=prior,
            study=name,
            objectives=tuple(objectives),
            seed=seed,
            confirm_seeds=confirm_seeds,
            early_stopping=early_stopping,
            rungs=tuple(rungs),
            max_latency_ms=max_latency_ms,
            latency_batch_size=latency_batch_size,
            deterministic=deterministic,
        )
        self._name = name

    @property
    def storage(self) -> str:
        """URL of the database."""
        return self._config.storage.url

    @property
    def name(self) -> str:
        """The study's name; if none was given, this opens the data to make one."""
        if self._name is None:
            self._name = prepare(self._config).record.name
        return self._name

    def run(
        self,
        trials: int | None = None,
        *,
        workers: int | None = 1,
        executor: Place | None = None,
        progress: bool | Callable[[Progress], None] = True,
    ) -> Study:
        """Run until the study has `trials` trials and its front is confirmed.

        Args:
            trials: total number of search trials over all runs; defaults to 24, or to the number
                that a supernet scores.
            workers: number of trials at once, or None for as many as fit. One runs in this
                process; more are processes, and a script has to call this method under
                `if __name__ == "__main__":`.
            executor: where trials run; defaults to what `workers` says.
            progress: whether to show the progress, or a callback for it.

        Returns:
            The study itself.

        Raises:
            InputError: data, recipe or space are invalid, another process runs this study, or its
                name belongs to another one.
            StorageError: the database failed; what it had committed is kept.
        """
        if executor is None:
            executor = InProcess() if workers == 1 else WorkerProcesses()
        if not isinstance(executor, Place):
            raise InputError(
                f"`executor` is InProcess(), WorkerProcesses() or RayCluster(), but got "
                f"{executor!r}"
            )
        compute = ComputeConfig(
            num_workers=workers, device=self._config.compute.device, **executor.options()
        )
        config = replace(self._config, num_trials=trials, compute=compute)
        prepared = prepare(config)
        self._name = prepared.record.name
        errors = progress_console()
        shown = (
            watcher(prepared, errors, progress)
            if isinstance(progress, bool)
            else nullcontext(progress)
        )
        with Store.open(prepared.storage, create=True) as store, shown as tell:
            run_search(
                prepared,
                store,
                on_start=(
                    (lambda start: print_start(start, prepared.record, errors))
                    if progress is True
                    else None
                ),
                on_progress=tell,
            )
        return self

    def front(self) -> Front:
        """The front of the stored trials.

        Raises:
            InputError: the study does not exist.
        """
        return Front(self._stored())

    def pick(self, which: str | int = "knee") -> Member:
        """Pick one placement of the study.

        Args:
            which: knee, best, the id of a search trial, or a limit such as "macs<1.2G".

        Raises:
            InputError: `which` is invalid, or no placement matches.
        """
        stored = self._stored()
        return Member(stored, stored.summary.pick(str(which)))

    def explain(self) -> Explanation:
        """What each part of a placement is worth in this study, at equal MACs.

        Raises:
            InputError: the study does not exist, or has too few placements; the message says how
                many more trials it needs.
        """
        return explain(self._stored().summary)

    def plot_front(self) -> Figure:
        """Plot accuracy against the first cost: the front over all placements."""
        return plot_front(self._stored().summary)

    def report(self, path: str | Path | None = None) -> Path:
        """Write the report, one self-contained HTML file.

        Args:
            path: the file; defaults to `report.html` in the study's folder.
        """
        summary = self._stored().summary
        file = (
            Path(path)
            if path is not None
            else self._config.storage.out / self.name / "report.html"
        )
        write_report(file, summary, convention=CONVENTION)
        return file

    def _stored(self) -> Stored:
        with Store.open(self.storage, read_only=True) as store:
            summary = StudySummary.read(store, store.study(self.name))
        record, config = summary.study.record, self._config
        weights = None
        if record.recipe:
            asked = isinstance(config.evaluation, FromScratch) and config.evaluation.weights_dir
            weights = config.storage.weights(asked or record.weights_dir)
        return Stored(self.storage, summary, weights)

    def __repr__(self) -> str:
        return f"<Study {self._name or 'not named yet'} of {self.space!r}>"

    def _repr_html_(self) -> str:
        if self._name is None:
            # Making its name would open the data, which displaying it should not do.
            return f"<b>Study</b>, not run yet{self.space._repr_html_()}"
        try:
            stored = self._stored()
        except InputError:
            return f"<b>{escape(self._name)}</b>, not run yet{self.space._repr_html_()}"
        counts = stored.summary.count(TrialRole.SEARCH)
        texts = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
        return (
            f"<b>{escape(self._name)}</b>: trials {escape(texts) or 'none'}"
            f"{Front(stored)._repr_html_()}"
        )


def _space(space: Space | DeclaredSpace | str | Path) -> Space:
    if isinstance(space, Space):
        return space
    return Space(space) if isinstance(space, DeclaredSpace) else Space.load(space)


def _places(storage: str | Path | None, out: str | Path | None) -> tuple[str | None, Path]:
    """The database's URL, or None for a file in the folder, and the folder."""
    if storage is None:
        return None, Path(os.path.abspath(out or DEFAULT_FOLDER))
    text = os.fspath(storage)
    url = text if "://" in text else sqlite_url(Path(os.path.abspath(os.path.expanduser(text))))
    if out is not None:
        return url, Path(os.path.abspath(out))
    file = sqlite_file(parse_url(url))
    return url, Path(os.path.abspath(DEFAULT_FOLDER if file is None else file.parent))
