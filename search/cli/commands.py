"""What each command does: checked arguments in, a JSON document out, the rest for people."""

from __future__ import annotations

import argparse
import os
import textwrap
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from sharedattn.backbones import build, resolve
from sharedattn.costs.break_even import less_attention_economics
from sharedattn.costs.latency import LatencySetting
from sharedattn.costs.model import CONVENTION, CostModel
from sharedattn.data import DataConfig, open_data
from sharedattn.data.balance import guessing_level, imbalance_warnings
from sharedattn.data.pixels import PixelChanges
from sharedattn.errors import InputError
from sharedattn.objectives import parse_bounds
from sharedattn.placement import NetworkSpec, ResolvedSpec
from sharedattn.recipe import Recipe
from sharedattn.results.database.store import Store
from sharedattn.results.export.folder import ExportRecord, check_target, read_export
from sharedattn.results.export.verify import verify_document
from sharedattn.results.front.confirmation import Candidate
from sharedattn.results.front.guessing import Guessing, known_class_counts, remedy
from sharedattn.results.front.summary import StudySummary, front_document
from sharedattn.results.records import Fidelity, Study, TrialRole
from sharedattn.results.report import write_report
from sharedattn.search.cli.progress import StudyDisplay, TrainingDisplay
from sharedattn.search.cli.tables import (
    analysis_notes,
    analysis_table,
    checks_table,
    cost_table,
    economics_text,
    front_table,
    papers_tables,
)
from sharedattn.search.cluster.resources import processes_here, resolve_device
from sharedattn.search.config import MAX_SEED, MAX_WORKERS, SearchConfig, check_whole
from sharedattn.search.data_plan import (
    DEFAULT_DATA,
    DataOptions,
    content_differences,
    data_for,
    look_at,
    open_checked,
)
from sharedattn.search.evaluation import EVALUATIONS, functions_of_plugins
from sharedattn.search.jobs.export import (
    export_placement,
    open_recorded,
    train_placement,
    verify_folder,
)
from sharedattn.search.paths import storage_url, weights_store
from sharedattn.search.plan_text import Work, cost_plan, data_plan, plan_lines
from sharedattn.search.run import Prepared, prepare, run_search, search_plan
from sharedattn.search.training_inputs import load_recipe
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.space import Space
from sharedattn.training.trainer import check_recipe
from sharedattn.units import format_quantity

Document = dict[str, Any]

SCAN_LINE_EVERY_S = 5.0


def search(arguments: argparse.Namespace, console: Console) -> Document:
    """`sharedattn search`: the main job, to its report and its exported knee."""
    started = time.monotonic()
    errors = _errors()
    bounds = _bounds(arguments)
    config = _config(
        arguments,
        max_latency_ms=bounds.pop("latency_ms", None),
        budget=Budget(bounds=bounds),
        data_options=_data_options(arguments),
    )
    prepared = prepare(config, on_scan=_scan_display(errors), remember=not arguments.dry_run)
    record, space = prepared.record, prepared.space
    folder = config.out / record.name
    check_target(folder / "knee", onnx=False)
    plan = search_plan(prepared)
    if (changed := _changed_data(prepared)) is not None:
        plan["data"]["warnings"].append(changed)
    _print_plan(plan, errors)
    if arguments.dry_run:
        return {"study": record.name, "plan": plan}

    def introduce(study: Study) -> None:
        console.print(study.record.name, style="bold")
        console.print(
            f"{space.in_budget:,} placements of {space.space.name}"
            + (f" ({space.size:,} without budget)" if space.in_budget < space.size else "")
            + (
                f", {record.num_trials} trials by {record.searcher}, "
                if prepared.shared is None
                else f", {record.num_trials:,} scored by shared weights, trainings "
            )
            + f"{prepared.slots.num_slots} at a time",
        )

    def announce(setting: LatencySetting) -> None:
        errors.print(f"measuring latencies: {setting}", highlight=False, markup=False)

    with Store.open(prepared.storage, create=True) as store:
        with StudyDisplay(errors, record, prepared.objectives) as display:
            study = run_search(
                prepared,
                store,
                on_latency=announce,
                on_begin=introduce,
                on_progress=display.update,
            )
        summary = StudySummary.read(store, study)
        report_path = folder / "report.html"
        write_report(report_path, summary, convention=CONVENTION)
        exported = None
        if prepared.weights is not None and summary.knee is not None:
            exported = folder / "knee"
            # A finished study is asked again for its result: what stands there is not made anew,
            # nor is the test split opened once more.
            if not _holds(exported, summary.knee, record.name):
                with TrainingDisplay(errors, "export", summary.knee.placement) as export_display:
                    message = export_placement(
                        store,
                        summary,
                        "knee",
                        exported,
                        weights=prepared.weights,
                        # The machine that drives a cluster may have no GPU of its own.
                        device=resolve_device(
                            "auto" if config.executor == "ray" else config.device
                        ),
                        on_progress=export_display.tell,
                    )
                if message is not None:
                    console.print(message)
    document = front_document(summary, report=report_path, wall_time_s=time.monotonic() - started)
    _print_front(summary, console)
    # What leaves a search without a result is an error, also with --json.
    _print_failures(summary, console if summary.candidates else errors)
    num_begun = sum(summary.count(TrialRole.SEARCH).values())
    checked = [
        f"{cost.name} <= {cost.unit.format(bound)}" for cost, bound in config.budget.uncounted
    ]
    if config.max_latency_ms is not None:
        checked.append(f"{config.max_latency_ms:g} ms")
    if checked and num_begun < min(space.in_budget, record.num_trials):
        console.print(
            f"{num_begun} trials: no further placement within {' and '.join(checked)} found"
        )
    if space.in_budget < record.num_trials and prepared.shared is None:
        console.print(f"all {space.in_budget} placements of the space were evaluated")
    console.print(f"report   {report_path}")
    if exported is not None:
        console.print(f"exported {exported}")
    return {
        **document,
        "plan": plan,
        "exported": None if exported is None else str(exported),
        "ok": bool(summary.candidates),
    }


def space(arguments: argparse.Namespace, console: Console) -> Document:
    """`sharedattn space`: how large a space is, and what lies in a budget."""
    budget = Budget(bounds=_bounds(arguments))
    if budget.uncounted:
        raise InputError(
            f"no space counts with a bound on {budget.uncounted[0][0].name}: a search checks it "
            f"once a placement was drawn; leave it out"
        )
    counted = BudgetedSpace(Space.load(arguments.space), budget)
    costs = {"macs": counted.macs_range, "params": counted.params_range}
    console.print(f"{counted.space.name}  {counted.space.backbone}", style="bold")
    console.print(f"placements  {counted.size:,}")
    share = counted.in_budget / counted.size
    console.print(f"in budget   {counted.in_budget:,}  ({share:.2%})")
    for name, (least, most) in costs.items():
        console.print(f"{name:11} {format_quantity(least)} to {format_quantity(most)}")
    console.print(CONVENTION, style="dim")
    return {
        "space": counted.space.name,
        "backbone": str(counted.space.backbone),
        "size": counted.size,
        "in_budget": counted.in_budget,
        **{name: {"min": least, "max": most} for name, (least, most) in costs.items()},
        "convention": CONVENTION,
    }


def cost(arguments: argparse.Namespace, console: Console) -> Document:
    """`sharedattn cost`: the closed form, and on demand what two counters say."""
    spec = resolve(NetworkSpec.parse(arguments.network))
    costs = CostModel(spec.backbone)
    figures = costs.cost(spec.placement)
    document: Document = {"network": str(spec), **figures.to_json(), "convention": CONVENTION}
    console.print(f"{spec} at {figures.image_size} pixels", style="bold")
    console.print(cost_table(figures))
    console.print(f"attention memory {figures.attention_bytes:,} bytes an image")
    document["less_attention"] = []
    for stage in range(len(spec.placement.stages)):
        economics = less_attention_economics(costs, stage)
        document["less_attention"].append(economics.to_json())
        console.print(f"stage {stage + 1}: {economics_text(economics)}")
    if arguments.check:
        # Imported here: fvcore takes its time, and only --check asks it.
        from sharedattn.costs.flop_counters import fvcore_macs, matmul_macs

        network = build(spec).eval()
        referees = {"fvcore_macs": fvcore_macs(network), "torch_matmul_macs": matmul_macs(network)}
        expected = {"fvcore_macs": figures.macs, "torch_matmul_macs": figures.matmul_macs}
        document |= referees
        document["ok"] = referees == expected
        for name, found in referees.items():
            console.print(
                f"{name} {found:,}: {'equal' if found == expected[name] else 'DIFFERENT'}",
            )
    console.print(CONVENTION, style="dim")
    return document


def papers(arguments: argparse.Namespace, console: Console) -> Document:
    """`sharedattn papers`: each published figure beside ours, and why they differ."""
    # Imported here: other commands need none of the papers' networks.
    from sharedattn.papers import RULE, rows
    from sharedattn.papers.page import convention_text, page

    table = rows()
    if arguments.to is not None:
        try:
            arguments.to.write_text(page(table), encoding="utf-8")
        except OSError as error:
            raise InputError(f"`--to` cannot be written: {error}; name another file") from error
    for renderable in papers_tables(table):
        console.print(renderable)
    console.print(f"{RULE}\n{convention_text()}", style="dim")
    return {
        "rows": [row.to_json() for row in table],
        "rule": RULE,
        "convention": convention_text(),
    }


def front(arguments: argparse.Namespace, console: Console) -> Document:
    """`sharedattn front`: what a study has found so far."""
    with _open(arguments) as store:
        study = _study(store, arguments.study)
        summary = StudySummary.read(store, study)
    path = arguments.out / study.record.name / "report.html"
    console.print(study.record.name, style="bold")
    _print_front(summary, console)
    _print_failures(summary, console)
    return front_document(summary, report=path if path.is_file() else None)


def report(arguments: argparse.Namespace, console: Console) -> Document:
    """`sharedattn report`: the study as one file."""
    with _open(arguments) as store:
        study = _study(store, arguments.study)
        summary = StudySummary.read(store, study)
    path = arguments.out / study.record.name / "report.html"
    write_report(path, summary, convention=CONVENTION)
    console.print(f"report   {path}")
    return {"study": study.record.name, "report": str(path)}


def export(arguments: argparse.Namespace, console: Console) -> Document:
    """`sharedattn export`: one placement as a folder that rebuilds it."""
    with _open(arguments) as store:
        study = _study(store, arguments.study)
        summary = StudySummary.read(store, study)
        name = "".join(c if c.isalnum() else "-" for c in arguments.pick).strip("-")
        folder = arguments.to or arguments.out / study.record.name / name
        placement = summary.pick(arguments.pick).placement
        with TrainingDisplay(_errors(), "export", placement) as display:
            message = export_placement(
                store,
                summary,
                arguments.pick,
                folder,
                weights=weights_store(
                    arguments.weights_dir or study.record.weights_dir, store.url, arguments.out
                ),
                device=resolve_device(arguments.device),
                onnx=arguments.onnx,
                data=arguments.data,
                data_root=arguments.data_root,
                on_progress=display.tell,
            )
    if message is not None:
        console.print(message)
    console.print(f"exported {folder}")
    return {"study": study.record.name, "exported": str(folder)}


def verify(arguments: argparse.Namespace, console: Console) -> Document:
    """`sharedattn verify`: whether an exported folder is what it says."""
    document = verify_folder(
        arguments.folder,
        data=arguments.data,
        data_root=arguments.data_root,
        device=resolve_device(arguments.device),
    )
    console.print(checks_table(document["checks"]))
    console.print("verified" if document["ok"] else "not verified", style="bold")
    return document


def train(arguments: argparse.Namespace, console: Console) -> Document:
    """`sharedattn train`: one placement, the whole recipe."""
    check_whole("--seed", arguments.seed, 0, MAX_SEED)
    if arguments.processes_per_trial is not None:
        check_whole("--processes-per-trial", arguments.processes_per_trial, 1, MAX_WORKERS)
    check_target(arguments.to, onnx=arguments.onnx)
    device = resolve_device(arguments.device)
    errors = _errors()
    spec, data, recipe = _training(arguments, errors)
    plan = training_plan(spec, data, recipe, device)
    _print_plan(plan, errors)
    if arguments.dry_run:
        return {"network": str(spec), "plan": plan}
    with TrainingDisplay(errors, "train", str(spec.placement)) as display:
        record = train_placement(
            spec,
            data,
            recipe,
            arguments.to,
            seed=arguments.seed,
            device=device,
            num_processes=processes_here(arguments.processes_per_trial, device),
            onnx=arguments.onnx,
            on_progress=display.tell,
        )
    console.print(str(spec), style="bold")
    console.print(
        f"top1 {record.evaluation.top1:.4f} on {record.evaluation.num_images:,} validation "
        f"images after {record.evaluation.wall_time_s:.0f} s"
    )
    warnings = _training_warnings(record)
    for warning in warnings:
        console.print(f"warning: {warning}", style="yellow")
    console.print(f"exported {arguments.to}")
    return {
        "network": str(spec),
        "warnings": warnings,
        "top1": record.evaluation.top1,
        "macs": record.macs,
        "params": record.params,
        "exported": str(arguments.to),
        "plan": plan,
    }


def analyze(arguments: argparse.Namespace, console: Console) -> Document:
    """`sharedattn analyze`: what the papers measured, with its random control."""
    # Imported here: matplotlib takes its time, and only this command draws.
    from sharedattn.search.jobs.analyze import analyse_config

    document, folder = analyse_config(
        arguments.config,
        data=arguments.data,
        data_root=arguments.data_root,
        against=arguments.against,
        num_images=arguments.images,
        num_controls=arguments.seeds,
        out=arguments.out,
        device=resolve_device(arguments.device),
    )
    console.print(document["network"], style="bold")
    console.print(analysis_table(document))
    for line in analysis_notes(document):
        console.print(line)
    console.print(f"analysis {folder}")
    return {**document, "folder": str(folder)}


def doctor(arguments: argparse.Namespace, console: Console) -> Document:
    """`sharedattn doctor`: what a search would find here, or on a cluster."""
    # Imported here: no other command looks at the machine.
    from sharedattn.search.cluster.doctor import diagnose

    config = _config(arguments, executor="local" if arguments.address is None else "ray")
    document = verify_document(list(diagnose(config, contracts=arguments.plugins)))
    console.print(checks_table(document["checks"]))
    console.print("ready" if document["ok"] else "not ready", style="bold")
    return document


def _training_warnings(record: ExportRecord) -> list[str]:
    """What people should know of a training that is no better than guessing, or of its data."""
    counts = known_class_counts(record.data)
    num_classes = record.spec.backbone.num_classes
    evaluation = record.evaluation
    warnings = imbalance_warnings(counts or (), record.data.get("classes") or ())
    if num_classes < 2:
        return warnings
    guessing = Guessing(
        level=guessing_level(num_classes, counts),
        num_classes=num_classes,
        num_images=evaluation.num_images,
    )
    if evaluation.top1 <= guessing.bar:
        epochs = evaluation.identity.fidelity.epochs
        warnings.insert(0, f"not above guessing: {guessing.text}; {remedy(epochs)}")
    return warnings


def _errors() -> Console:
    """Where progress and what goes wrong are shown, also with --json."""
    return Console(stderr=True, soft_wrap=True)


def _config(arguments: argparse.Namespace, **changes: Any) -> SearchConfig:
    """The search that the options given describe; the others keep their defaults."""
    names = {field.name for field in fields(SearchConfig)}
    given = {
        name: value
        for name, value in vars(arguments).items()
        if name in names and value is not None
    }
    given |= _of_plugin(given.get("evaluator", "scratch"))
    return SearchConfig(**{**given, **changes})


def _of_plugin(evaluator: str) -> dict[str, Any]:
    """What the name of a plug-in's evaluator stands for; nothing where it is one of ours."""
    ours = [name for name in EVALUATIONS if name != "callable"]
    if evaluator in ours:
        return {}
    known = functions_of_plugins()
    if evaluator not in known:
        raise InputError(
            f"--evaluator is {evaluator!r}, and one of {', '.join((*ours, *known))}; if a plug-in "
            f"adds it, install that plug-in"
        )
    return {"evaluator": "callable", "function": known[evaluator]}


def _training(
    arguments: argparse.Namespace, errors: Console
) -> tuple[ResolvedSpec, DataConfig, Recipe]:
    """Network, data and recipe of `train`: an export's, with what the options change."""
    options = _data_options(arguments)
    if os.path.exists(arguments.config):  # `Path.exists` raises on a text too long for a name
        record = read_export(Path(arguments.config))
        given = [*options.given(), *(["--val-fraction"] if arguments.val_fraction else [])]
        if given:
            raise InputError(
                f"{given[0]} changes the data, and {arguments.config} is an export with data of "
                f'its own; to train its network on other data write "{record.spec}" in its place'
            )
        spec = resolve(record.spec)
        if record.starts_from is None:
            recipe = Recipe.from_json(record.recipe)
        else:
            # Its own goes on from shared weights, which are not here.
            recipe = load_recipe(None, record.data["name"], None)
        recipe = _changed(recipe, arguments)
        source = open_recorded(
            record.data,
            f"export {arguments.config}",
            data=arguments.data,
            data_root=arguments.data_root,
        )
        return spec, source.config, recipe
    parsed = NetworkSpec.parse(arguments.config)
    spec = resolve(parsed)
    name = arguments.data or DEFAULT_DATA
    recipe = _changed(load_recipe(None, name, None), arguments)
    data = data_for(
        parsed.backbone,
        name,
        arguments.data_root,
        arguments.val_fraction,
        options,
        recipe=recipe,
    )
    data = look_at(data, options, None, on_progress=_scan_display(errors))
    open_checked(data, arguments.val_fraction)
    return spec, data, recipe


def _changed(recipe: Recipe, arguments: argparse.Namespace) -> Recipe:
    """The recipe asked for in place of another, with as many epochs as asked for."""
    if arguments.recipe is not None:
        recipe = Recipe.load(arguments.recipe)
    return recipe if arguments.epochs is None else recipe.with_changes(epochs=arguments.epochs)


def training_plan(spec: ResolvedSpec, data: DataConfig, recipe: Recipe, device: str) -> Document:
    """What `train` is about to do."""
    source = open_data(data)
    check_recipe(spec, source, recipe, device=device)
    macs = CostModel(spec.backbone).totals(spec.placement).macs
    work = Work(
        backbone=spec.backbone,
        placements=[spec.placement],
        macs_range=(macs, macs),
        recipe=recipe,
        num_trainings=1,
        num_slots=1,
        num_seeds=1,
        threads=torch.get_num_threads(),
        device=device,
        is_here=True,
    )
    return {"data": data_plan(data, source), "cost": cost_plan(work, source)}


def _changed_data(prepared: Prepared) -> str | None:
    """Says that a folder is no longer what an earlier study read; None: nothing is to be said.

    With changed data the same command has another fingerprint, and so begins another study.
    """
    if prepared.data is None or not prepared.data.is_folder:
        return None
    try:
        with Store.open(prepared.storage, read_only=True) as store:
            studies = store.studies()
    except InputError:
        return None
    earlier = [
        s.record
        for s in studies
        if s.record.data.get("config", {}).get("name") == prepared.data.name
    ]
    if not earlier or prepared.record.name in {record.name for record in earlier}:
        return None
    found = content_differences(open_data(prepared.data), earlier[-1].data)
    if not found:
        return None
    return (
        f"this is another study than {earlier[-1].name}, which searched this folder as it was: "
        f"{'; '.join(found)}"
    )


def _print_plan(plan: Document, errors: Console) -> None:
    if plan["data"] is None:
        return
    for line in plan_lines(plan["data"], plan["cost"]):
        # In a log a line stays whole, for whoever searches in it.
        folded = (
            textwrap.wrap(line, errors.width, subsequent_indent=" " * 8)
            if errors.is_terminal
            else [line]
        )
        for part in folded:
            errors.print(part, highlight=False, markup=False)


def _scan_display(errors: Console) -> Callable[[int, int], None]:
    """Says from time to time how many files of a folder have been looked at."""
    said_at = time.monotonic()

    def say(done: int, total: int) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= SCAN_LINE_EVERY_S:
            said_at = time.monotonic()
            errors.print(f"looking at every image once: {done:,} of {total:,}", highlight=False)

    return say


def _data_options(arguments: argparse.Namespace) -> DataOptions:
    names = ("mean", "std", "interpolation", "crop_pct", "crop_mode")
    return DataOptions(
        test_split=arguments.test_split,
        classes=arguments.classes,
        on_bad_image=arguments.on_bad_image or "fail",
        scan=arguments.scan or "auto",
        tag=arguments.pixels,
        pixels=PixelChanges(**{name: getattr(arguments, name) for name in names}),
    )


def _bounds(arguments: argparse.Namespace) -> dict[str, float]:
    """The bounds of `--max` and of the options that are short for it, by name.

    Raises:
        InputError: one that means nothing, or two on one cost.
    """
    short = {"macs": arguments.max_macs, "params": arguments.max_params}
    if "max_latency_ms" in arguments:
        short["latency_ms"] = arguments.max_latency_ms
    bounds: dict[str, float] = {name: bound for name, bound in short.items() if bound is not None}
    for name, bound in parse_bounds(arguments.bounds or ()):
        if name in bounds:
            raise InputError(f"--max bounds {name} twice; leave one of them out")
        bounds[name] = bound
    return bounds


def _open(arguments: argparse.Namespace) -> Store:
    return Store.open(storage_url(arguments.storage, arguments.out), read_only=True)


def _study(store: Store, name: str | None) -> Study:
    """The study of this name, or the latest."""
    if name is not None:
        return store.study(name)
    studies = store.studies()
    if not studies:
        raise InputError(f"the database {store.url} has no study; run sharedattn search first")
    return studies[-1]


def _holds(folder: Path, candidate: Candidate, study: str) -> bool:
    """Whether a folder is the export of a study's placement, of the run that would be exported."""
    run = candidate.best_run
    try:
        record = read_export(folder)
    except InputError:
        return False
    identity = record.evaluation.identity
    if Fidelity.from_key(run.fidelity_key or "").weights == "trained":
        return identity.key == run.evaluation_key
    # It was trained for its export: the study has no evaluation of that name.
    made = (record.study, record.trial, identity.spec_key, identity.seed)
    return made == (study, candidate.number, run.spec_key, run.seed)


def _print_failures(summary: StudySummary, console: Console) -> None:
    """Why trials failed; none that is complete makes it what went wrong."""
    is_error = bool(summary.failures) and not summary.candidates
    for line in summary.failure_lines:
        console.print(
            f"{'sharedattn: no trial is complete, ' if is_error else ''}{line}",
            style="red" if is_error else "yellow",
            markup=False,
            highlight=False,
        )


def _print_front(summary: StudySummary, console: Console) -> None:
    if not summary.front.members:
        console.print("no trial is complete")
        return
    console.print(front_table(summary.front, summary.objectives))
    reference = ", ".join(
        f"{name} {summary.study.record.reference_point[name]:g}"
        for name in summary.study.record.objectives
    )
    confirmed = "confirmed" if summary.front.is_confirmed else "not confirmed"
    console.print(f"{confirmed}; hypervolume {summary.hypervolume:.4f} of the box to {reference}")
    if summary.latency_text is not None:
        console.print(f"latency: {summary.latency_text}")
    if summary.stopping is not None:
        console.print(str(summary.stopping))
    if summary.inheritance is not None:
        console.print(str(summary.inheritance))
    for warning in summary.warnings:
        console.print(f"warning: {warning}", style="yellow")
