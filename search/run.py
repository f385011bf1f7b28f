"""Prepare a search from its configuration, checking everything, and run it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import partial

from sharedattn.costs.latency import LatencySetting
from sharedattn.data import DataSource, open_data
from sharedattn.errors import InputError
from sharedattn.hashing import document_key
from sharedattn.mechanisms.registry import plugins_of, registry
from sharedattn.objectives import (
    Objective,
    default_objectives,
    parse_objectives,
    shown_costs,
)
from sharedattn.placement import BackboneSpec
from sharedattn.results.database.store import Store
from sharedattn.results.database.writing import StudyWriter
from sharedattn.results.records import (
    Document,
    Start,
    Study,
    StudyRecord,
    TrialRole,
)
from sharedattn.search.cluster.node_checks import check_cluster
from sharedattn.search.cluster.resources import Slots, find_slots
from sharedattn.search.config import DEFAULT_DATA_TRIALS, DEFAULT_TRIALS, SearchConfig
from sharedattn.search.data_plan import DEFAULT_DATA, look_at
from sharedattn.search.evaluation import Setup
from sharedattn.search.evaluators.base import Evaluator
from sharedattn.search.evaluators.table import BenchEvaluator
from sharedattn.search.executors import Executor, TrialResources
from sharedattn.search.executors.in_process import InProcessExecutor
from sharedattn.search.executors.local import LocalExecutor
from sharedattn.search.executors.process_group import in_processes
from sharedattn.search.executors.simulated import SimulatedExecutor
from sharedattn.search.executors.worker_process import end_while_main_is_imported
from sharedattn.search.plan_text import (
    Work,
    budget_plan,
    cost_plan,
    data_plan,
    drawn_placements,
    start_plan,
)
from sharedattn.search.prior import earlier_accuracies, kept_accuracies
from sharedattn.search.provenance import provenance
from sharedattn.search.pruners import PRUNERS, Pruner
from sharedattn.search.recorded_data import content_differences
from sharedattn.search.searchers import DEFAULT_SEARCHER, FORMER_DEFAULT, searchers
from sharedattn.search.searchers.prior import PRIOR_NOTE
from sharedattn.search.status import Progress
from sharedattn.search.study.latency import Latencies, check_setting, with_latencies
from sharedattn.search.study.loop import StudyLoop
from sharedattn.search.study.strategies import SearchStrategy
from sharedattn.search.study.strategies.supernet import (
    SharedExecutors,
    SupernetSearch,
    check_goes_on,
    default_num_trials,
)
from sharedattn.search.study_name import check_folder, made_name
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.space import Space
from sharedattn.tasks import CLASSIFY, head_kind

REFERENCE_FACTOR = 1.1  # times the space's largest cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared(Setup):
    """A search that passed every check but has not begun, with the setup of its evaluation.

    Attributes:
        config: the search's configuration.
        objectives: the objectives.
        stopping: stops trials at rungs, or None.
        slots: resources for trials.
        record: the study's database record.
        prior: accuracies of an earlier study by placement, or None to begin without.
    """

    config: SearchConfig
    objectives: tuple[Objective, ...]
    stopping: Pruner | None
    slots: Slots
    record: StudyRecord
    prior: Mapping[str, float] | None

    @property
    def storage(self) -> str:
        """URL of the database."""
        return self.config.storage.url


def prepare(
    config: SearchConfig,
    *,
    on_scan: Callable[[int, int], None] | None = None,
    remember: bool = True,
) -> Prepared:
    """Check everything that can be wrong before a search begins.

    Args:
        config: the search's configuration.
        on_scan: called from time to time with the number of files of a folder that were checked,
            and their total.
        remember: whether to cache these checks beside the database.

    Raises:
        InputError: something is wrong; the message says what to do.
    """
    end_while_main_is_imported()
    space = config.space if isinstance(config.space, Space) else Space.load(config.space)
    task = head_kind(space.backbone.head).task
    objectives = parse_objectives(config.objectives or default_objectives(task), task)
    prior = None
    if config.prior is not None:
        prior = earlier_accuracies(config.storage.url, config.prior, space, objectives[0].name)
    slots = find_slots(config.compute, config.evaluation.processes_per_trial)
    look = partial(look_at, memory=config.storage.scans, remember=remember, on_progress=on_scan)
    setup = config.evaluation.prepare(config, space, slots, look)
    weights = setup.weights
    if config.compute.executor == "ray":
        check_cluster(setup.data, None if weights is None else weights.blobs)
    stopping = (
        None
        if config.early_stopping is None
        else PRUNERS[config.early_stopping](rungs=setup.evaluator.rungs)
    )
    choices = partial(_fingerprint, objectives=objectives, stopping=stopping, slots=slots)
    names = (DEFAULT_SEARCHER, FORMER_DEFAULT) if config.searcher is None else (config.searcher,)
    candidates = [
        (made, _record(config, made, objectives, choices(config, made, name), name))
        for name in names
        for made in (setup, setup.earlier)
        if made is not None
    ]
    setup, record = _first_stored(config.storage.url, candidates)
    if prior is not None:
        # The earlier study may have more trials by now.
        prior = kept_accuracies(config.storage.url, record) or prior
    check_folder(
        config.storage.out / record.name,
        config.storage.database,
        None if weights is None else weights.blobs.folder,
    )
    return Prepared(
        **{field.name: getattr(setup, field.name) for field in fields(setup)},
        config=config,
        objectives=objectives,
        stopping=stopping,
        slots=slots,
        record=record,
        prior=prior,
    )


def _first_stored(
    storage: str, candidates: Sequence[tuple[Setup, StudyRecord]]
) -> tuple[Setup, StudyRecord]:
    """The first study that the database has, by name and fingerprint, or else the first of all.

    Thus a study that an earlier version began goes on by the same command.
    """
    if len(candidates) > 1:
        with suppress(InputError), Store.open(storage, read_only=True) as store:
            for setup, record in candidates:
                found = store.find_study(record.name)
                if found is not None and found.record.fingerprint == record.fingerprint:
                    return setup, record
    return candidates[0]


def _fingerprint(
    config: SearchConfig,
    setup: Setup,
    searcher: str,
    *,
    objectives: tuple[Objective, ...],
    stopping: Pruner | None,
    slots: Slots,
) -> Document:
    """Every choice that identifies a study."""
    space, evaluator = setup.space, setup.evaluator
    fingerprint = {
        "space": space.space.to_document(),
        "data": evaluator.data_fingerprint,
        "recipe": evaluator.recipe_key,
        "evaluator": config.evaluation.name,
        "objectives": [objective.name for objective in objectives],
        **space.budget.to_document(),
        "searcher": searcher,
        "seed": config.seed,
        "early_stopping": None if stopping is None else _stopping_document(stopping, space),
        **setup.fingerprint,
        "deterministic": config.deterministic,
        "workers": slots.num_slots if config.deterministic else None,
    }
    if config.measures_latency:
        # Added only then, so that studies from before latencies keep their fingerprints.
        fingerprint["latency"] = {
            "max_ms": config.max_latency_ms,
            "batch_size": config.latency_batch_size,
        }
    if config.prior is not None:
        fingerprint["prior"] = config.prior
    if plugins := _plugins_of(space.space):
        fingerprint["plugins"] = plugins
    return fingerprint


def _default_trials(data: Document) -> int:
    return DEFAULT_DATA_TRIALS if data["name"] == DEFAULT_DATA else DEFAULT_TRIALS


def _record(
    config: SearchConfig,
    setup: Setup,
    objectives: tuple[Objective, ...],
    fingerprint: Document,
    searcher: str,
) -> StudyRecord:
    """The study's database record."""
    space, described, weights = setup.space, setup.data_document, setup.weights
    name = config.study or made_name(
        space.space.name, described["name"], document_key(fingerprint)[:6]
    )
    default_trials = (
        _default_trials(described) if setup.shared is None else default_num_trials(space)
    )
    return StudyRecord(
        name=name,
        fingerprint_document=fingerprint,
        space=space.space.to_document(),
        data=described,
        recipe={} if setup.recipe is None else setup.recipe.to_json(),
        objectives=tuple(objective.name for objective in objectives),
        searcher=searcher,
        seed=config.seed,
        reference_point=_reference_point(objectives, space),
        provenance=provenance(),
        num_trials=config.num_trials or default_trials,
        confirm_seeds=config.confirm_seeds,
        weights_dir=None if weights is None else weights.blobs.shown(),
    )


def _plugins_of(space: Space) -> dict[str, str]:
    """Versions of plug-ins whose kinds or gates a space uses, by name."""
    if not registry().plugins:
        return {}
    positions = list(itertools.chain.from_iterable(space.envelope().stages))
    used = plugins_of(
        (branch.letter for position in positions for branch in position.kinds),
        (cell.gate for position in positions for cell in position.cells),
    )
    return {plugin.name: plugin.version for plugin in sorted(set(used.values()))}


def search_plan(prepared: Prepared) -> Document:
    """The plan of a prepared search: its data and its expected cost.

    Returns:
        `data` and `cost` as in `data_plan` and `cost_plan`; both are None if nothing is trained.
        `weights` as in `start_plan`, only if a supernet starts from a trained model. `budget` as
        in `budget_plan`, only if a bound is a share. `prior` (`study`, `accuracies`, their
        number), only if it begins with those of an earlier study.
    """
    config, shared = prepared.config, prepared.shared
    bounds = budget_plan(config.budget, prepared.space)
    more: Document = {"budget": bounds} if bounds else {}
    if prepared.prior is not None:
        more["prior"] = {"study": config.prior, "accuracies": len(prepared.prior)}
    if prepared.data is None or prepared.recipe is None:
        return {"data": None, "cost": None, **more}
    source, space, slots = open_data(prepared.data), prepared.space, prepared.slots
    work = Work(
        backbone=space.space.backbone,
        placements=drawn_placements(space, config.seed),
        macs_range=space.macs_range_in_budget,
        recipe=prepared.recipe,
        num_trainings=min(prepared.record.num_trials, space.in_budget),
        num_slots=slots.num_slots,
        num_seeds=config.confirm_seeds,
        trains_baselines=config.trains_baselines,
        threads=slots.resources.cpus,
        device=slots.device,
        is_here=config.compute.executor == "local",
    )
    if shared is not None:
        recipe = shared.supernet.recipe
        work = replace(
            work,
            recipe=recipe.training,
            num_trainings=1,
            num_slots=1,
            threads=work.threads * slots.num_slots,
            is_supernet=True,
            member_epochs=prepared.recipe.epochs,
            placements_per_step=recipe.sampled_per_step + 2 * recipe.sandwich,
        )
    data = data_plan(prepared.data, source)
    data["warnings"] += _changed_data(prepared, source)
    start = None if shared is None else shared.supernet.start
    weights = {} if start is None else {"weights": start_plan(start)}
    return {"data": data, "cost": cost_plan(work, source), **weights, **more}


def _changed_data(prepared: Prepared, source: DataSource) -> list[str]:
    """A warning if a folder has changed since an earlier study read it, or nothing.

    Changed data changes the fingerprint, so the same command begins another study.
    """
    config = source.config
    if not config.is_folder:
        return []
    try:
        with Store.open(prepared.storage, read_only=True) as store:
            records = [study.record for study in store.studies()]
    except InputError:
        return []
    earlier = [r for r in records if r.data.get("config", {}).get("name") == config.name]
    if not earlier or prepared.record.name in {record.name for record in earlier}:
        return []
    found = content_differences(source, earlier[-1].data)
    said = (
        f"this is another study than {earlier[-1].name}, which searched this folder as it was: "
        f"{'; '.join(found)}"
    )
    return [said] if found else []


def _reference_point(objectives: Sequence[Objective], space: BudgetedSpace) -> dict[str, float]:
    """The worst value of each objective: that of guessing, and above the space's largest cost.

    The reference latency is measured once the study is created.
    """
    return {
        objectives[0].name: _chance(space.space.backbone),
        **{
            cost.name: REFERENCE_FACTOR * space.largest(cost)
            for cost in shown_costs(objectives)
            if cost.value_of is not None
        },
    }


def _chance(backbone: BackboneSpec) -> float:
    """The quality of guessing: the accuracy of a classifier; 0 for other tasks."""
    is_classifier = head_kind(backbone.head).task == CLASSIFY
    return 1.0 / backbone.num_classes if is_classifier else 0.0


def _stopping_document(stopping: Pruner, space: BudgetedSpace) -> Document:
    """The settings that judgements depend on, for the fingerprint.

    Trials once competed in MACs bins. Now one bin covers the whole budget; its entry stays so
    that stored studies keep their fingerprints.
    """
    least, most = space.macs_range
    return {
        **stopping.document(),
        "macs_range": [least, min(most, space.budget.max_macs or most)],
        "num_bands": 1,
    }


def run_search(
    prepared: Prepared,
    store: Store,
    *,
    on_latency: Callable[[LatencySetting], None] | None = None,
    on_begin: Callable[[Study], None] | None = None,
    on_start: Callable[[Start], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Study:
    """Run a prepared search to its end, resuming an earlier run if there is one.

    Args:
        prepared: the checked search.
        store: its database, open.
        on_latency: called before a new study's latencies are measured, which takes some time.
        on_begin: called with the study once this process holds its lock.
        on_start: called with what the trained model that the search starts from scores before
            anything is trained; not called without one.
        on_progress: called after every event, and once a second without one.

    Returns:
        The finished study.

    Raises:
        InputError: the study's name belongs to another search; another process drives it;
            latencies would be measured with other settings than before, or none is within the
            bound; or workers cannot import the calling script.
        StorageError: the database failed; committed data is kept.
    """
    end_while_main_is_imported()
    study = _study(prepared, store, on_latency)
    with store.drive(study) as driver:
        driver.set_totals(
            num_trials=prepared.record.num_trials, confirm_seeds=prepared.record.confirm_seeds
        )
        study = store.study(study.record.name)
        if on_begin is not None:
            on_begin(study)
        _drive(prepared, store, driver, study, on_start, on_progress)
    return store.study(study.record.name)


def _study(
    prepared: Prepared, store: Store, on_latency: Callable[[LatencySetting], None] | None
) -> Study:
    """Get or create the study; a new one's latencies are measured first."""
    config, record = prepared.config, prepared.record
    stored = store.find_study(record.name)
    if stored is not None:
        check_goes_on(store, stored)
    if not config.measures_latency:
        return store.get_or_create_study(record)
    setting = LatencySetting.here(prepared.slots.device, config.latency_batch_size)
    if stored is None:
        if on_latency is not None:
            on_latency(setting)
        record = with_latencies(
            record,
            prepared.space,
            setting,
            reference_factor=REFERENCE_FACTOR,
        )
        return store.get_or_create_study(record)
    study = store.get_or_create_study(record)
    num_begun = sum(store.trials.counts(study, TrialRole.SEARCH).values())
    if num_begun < record.num_trials and study.record.latency is not None:
        check_setting(study.record.latency, setting)
    return study


def _drive(
    prepared: Prepared,
    store: Store,
    driver: StudyWriter,
    study: Study,
    on_start: Callable[[Start], None] | None,
    on_progress: Callable[[Progress], None] | None,
) -> None:
    if prepared.weights is not None:
        prepared.weights.sweep()
    notes = store.searcher_attributes(study)
    if prepared.prior is not None and PRIOR_NOTE not in notes:
        # Kept as they are now, so that a resumed study proposes as if never interrupted.
        notes[PRIOR_NOTE] = prepared.prior
        driver.save_searcher_attributes({PRIOR_NOTE: prepared.prior})
    searcher = searchers()[prepared.record.searcher](
        prepared.space,
        prepared.objectives,
        seed=prepared.config.seed,
        num_trials=prepared.record.num_trials,
        study_attributes=notes,
    )
    latencies = None
    if prepared.config.measures_latency:
        latencies = Latencies(store, driver, study, prepared.config.max_latency_ms)
    with _executor(prepared) as executor:
        StudyLoop(
            store=store,
            driver=driver,
            study=study,
            space=prepared.space,
            objectives=prepared.objectives,
            evaluator=prepared.shared or prepared.evaluator,
            searcher=searcher,
            executor=executor,
            deterministic=prepared.config.deterministic,
            strategy=_supernet_strategy(prepared, on_start),
            pruner=prepared.stopping,
            weights=prepared.weights,
            checkpoints=prepared.checkpoints,
            latencies=latencies,
            trains_baselines=prepared.config.trains_baselines,
            on_progress=on_progress,
        ).run()


def _supernet_strategy(
    prepared: Prepared, on_start: Callable[[Start], None] | None
) -> SearchStrategy | None:
    """The strategy of a supernet, or None to evaluate trials one by one."""
    if prepared.shared is None:
        return None
    return SupernetSearch(
        prepared.shared,
        SharedExecutors(
            training=lambda: _training_executor(prepared),
            scoring=lambda: _executor(prepared, "scoring"),
        ),
        on_start,
    )


def _executor(prepared: Prepared, what: str = "") -> Executor:
    """Create slots for trials, or for other named work with separate files."""
    # Scoring cannot run as several processes, which `evaluator` may.
    evaluator = prepared.shared if what and prepared.shared is not None else prepared.evaluator
    return _make_executor(prepared, evaluator, prepared.slots, what)


def _training_executor(prepared: Prepared) -> Executor:
    """One slot for the supernet: the whole machine, or a trial's resources on a cluster."""
    slots, resources = prepared.slots, prepared.slots.resources
    if prepared.config.compute.executor != "ray":
        resources = TrialResources(
            cpus=slots.num_slots * resources.cpus,
            gpus=resources.gpus if resources.gpus < 1 else float(prepared.training_processes),
        )
    assert prepared.shared is not None
    evaluator = in_processes(prepared.shared, prepared.training_processes)
    one_slot = replace(slots, num_slots=1, resources=resources)
    return _make_executor(prepared, evaluator, one_slot, "supernet")


def _make_executor(prepared: Prepared, evaluator: Evaluator, slots: Slots, what: str) -> Executor:
    config, resources = prepared.config, slots.resources
    if config.compute.executor == "ray":
        # Imported here: a search on one machine needs no Ray.
        from sharedattn.search.executors.ray.executor import RayTuneExecutor

        return RayTuneExecutor(
            evaluator,
            num_slots=slots.num_slots,
            resources=resources,
            folder=config.storage.out
            / prepared.record.name
            / (f"tune-{what}" if what else "tune"),
        )
    if isinstance(evaluator, BenchEvaluator):
        return SimulatedExecutor(evaluator, num_slots=slots.num_slots)
    if config.compute.executor == "in-process":
        return InProcessExecutor(evaluator)
    return LocalExecutor(
        evaluator, num_slots=slots.num_slots, threads=resources.cpus, gpus=resources.gpus
    )
