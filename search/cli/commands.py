"""The commands: checked arguments in, a JSON document out, and text for people."""

from __future__ import annotations

import argparse
import math
import os
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from sharedattn.backbones import build, resolve
from sharedattn.costs.break_even import less_attention_economics
from sharedattn.costs.model import CONVENTION, CostModel, convention_of
from sharedattn.data import DataSource, open_data
from sharedattn.errors import InputError
from sharedattn.placement import NetworkSpec
from sharedattn.recipe import Recipe
from sharedattn.results.database.store import Store
from sharedattn.results.explanation.explanation import explain as explanation_of
from sharedattn.results.export.folder import (
    ExportRecord,
    check_target,
    load_network,
    read_export,
)
from sharedattn.results.export.verify import verify_document
from sharedattn.results.front.summary import StudySummary, front_document
from sharedattn.results.records import Document, Study, TrialRole
from sharedattn.results.report import pictures_path, write_report
from sharedattn.search.checks import MAX_COUNT, MAX_SEED, MAX_WORKERS, check_whole
from sharedattn.search.cli.options import budget_of, cost_bounds, data_options, search_config
from sharedattn.search.cli.printing import (
    print_explanation,
    print_failures,
    print_front,
    print_plan,
    print_start,
    progress_console,
    scan_display,
)
from sharedattn.search.cli.progress import StudyDisplay, TrainingDisplay
from sharedattn.search.cli.tables import (
    analysis_notes,
    analysis_table,
    checks_table,
    cost_table,
    economics_text,
    papers_tables,
)
from sharedattn.search.cluster.resources import processes_here, resolve_device
from sharedattn.search.config import DEFAULT_SPACE
from sharedattn.search.data_plan import (
    data_for,
    default_data,
    for_data,
    look_at,
    open_checked,
)
from sharedattn.search.evaluation import FromScratch
from sharedattn.search.evaluation.recipes import for_start, recipe_for
from sharedattn.search.evaluators.started import ExportStart
from sharedattn.search.jobs.export import export_placement, is_export_of
from sharedattn.search.jobs.train import (
    PlacementTraining,
    train_placement,
    training_plan,
    training_warnings,
)
from sharedattn.search.jobs.trial_length import trial_length_of, validated
from sharedattn.search.jobs.verify import verify_folder
from sharedattn.search.paths import StorageConfig
from sharedattn.search.recorded_data import open_recorded
from sharedattn.search.run import Prepared, prepare, run_search, search_plan
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.space import Space
from sharedattn.tasks import CLASSIFY, DENOISE, HEADS, QUALITIES, head_kind
from sharedattn.units import format_quantity
from sharedattn.weights.trained_start import TrainedStart, neutral


def search(arguments: argparse.Namespace, console: Console) -> Document:
    """Run `sharedattn search`: search, write the report and export the knee."""
    started = time.monotonic()
    errors = progress_console()
    bounds = cost_bounds(arguments)
    if arguments.task is not None:
        arguments.space = Space.load(arguments.space or DEFAULT_SPACE, task=arguments.task)
    config = search_config(
        arguments,
        max_latency_ms=bounds.pop("latency_ms", None),
        budget=budget_of(arguments, bounds),
        data_options=data_options(arguments),
    )
    prepared = prepare(config, on_scan=scan_display(errors), remember=not arguments.dry_run)
    record = prepared.record
    folder = config.storage.out / record.name
    check_target(folder / "knee", onnx=False)
    plan = search_plan(prepared)
    print_plan(plan, errors)
    if arguments.dry_run:
        return {"study": record.name, "plan": plan}
    with Store.open(prepared.storage, create=True) as store:
        with StudyDisplay(errors, record, prepared.objectives) as display:
            study = run_search(
                prepared,
                store,
                on_latency=lambda setting: errors.print(
                    f"measuring latencies: {setting}", highlight=False, markup=False
                ),
                on_begin=lambda study: _print_beginning(prepared, study, console),
                on_start=lambda start: print_start(start, record, errors),
                on_progress=display.update,
            )
        summary = StudySummary.read(store, study)
        report_path = folder / "report.html"
        write_report(report_path, summary, convention=CONVENTION)
        exported = _export_knee(prepared, store, summary, folder / "knee", console)
        drawn = None if exported is None else _draw_knee(prepared, summary, exported, report_path)
        if drawn is not None:
            write_report(report_path, summary, convention=CONVENTION)
    document = front_document(summary, report=report_path, wall_time_s=time.monotonic() - started)
    print_front(summary, console)
    # A search without a result is an error, also with --json.
    print_failures(summary, console if summary.candidates else errors)
    _print_ending(prepared, summary, console)
    console.print(f"report   {report_path}")
    if drawn:
        console.print(f"knee     {drawn}")
    if exported is not None:
        console.print(f"exported {exported}")
    return {
        **document,
        "plan": plan,
        "exported": None if exported is None else str(exported),
        "ok": bool(summary.candidates),
    }


def _print_beginning(prepared: Prepared, study: Study, console: Console) -> None:
    record, space = prepared.record, prepared.space
    console.print(study.record.name, style="bold")
    console.print(
        f"{space.in_budget:,} placements of {space.space.name}"
        + (f" ({space.size:,} without budget)" if space.in_budget < space.size else "")
        + (
            f", {record.num_trials} trials by {record.searcher}, "
            if prepared.shared is None
            else f", {record.num_trials:,} to score by shared weights, trainings "
        )
        + f"{prepared.slots.num_slots} at a time",
    )


def _export_knee(
    prepared: Prepared, store: Store, summary: StudySummary, folder: Path, console: Console
) -> Path | None:
    """Export the knee unless the folder has that export; None if there is nothing to export."""
    if prepared.weights is None or summary.knee is None:
        return None
    # A finished study may be run again for its result; neither repeat its export nor open the
    # test split once more.
    if is_export_of(folder, summary.knee, prepared.record.name):
        return folder
    # The machine that drives a cluster may have no GPU.
    compute = prepared.config.compute
    device = "auto" if compute.executor == "ray" else compute.device
    with TrainingDisplay(progress_console(), "export", summary.knee.placement) as display:
        message = export_placement(
            store,
            summary,
            "knee",
            folder,
            weights=prepared.weights,
            device=resolve_device(device),
            on_progress=display.tell,
        )
    if message is not None:
        console.print(message)
    return folder


def _draw_knee(
    prepared: Prepared, summary: StudySummary, exported: Path, report: Path
) -> str | None:
    """Draw what the exported knee says of images, or the images that it generates.

    Returns:
        A note on a new picture, or None if there is none.
    """
    assert summary.knee is not None and prepared.data is not None
    path = pictures_path(report, summary.knee)
    if head_kind(prepared.space.space.backbone.head).task == CLASSIFY or path.is_file():
        return None
    # Imported here, since classifiers do not need torchvision's detectors.
    from sharedattn.results.report.pictures import write_pictures

    return write_pictures(path, load_network(exported), open_data(prepared.data))


def _print_ending(prepared: Prepared, summary: StudySummary, console: Console) -> None:
    """Print why a search has fewer trials than requested."""
    config, record, space = prepared.config, prepared.record, prepared.space
    num_begun = sum(summary.count(TrialRole.SEARCH).values())
    checked = [
        f"{cost.name} <= {cost.unit.format(bound)}" for cost, bound in space.budget.uncounted
    ]
    if config.max_latency_ms is not None:
        checked.append(f"{config.max_latency_ms:g} ms")
    if checked and num_begun < min(space.in_budget, record.num_trials):
        console.print(
            f"{num_begun} trials: no further placement within {' and '.join(checked)} found"
        )
    if space.in_budget < record.num_trials and prepared.shared is None:
        console.print(f"all {space.in_budget} placements of the space were evaluated")


def space(arguments: argparse.Namespace, console: Console) -> Document:
    """Run `sharedattn space`: print a space's size, in total and within a budget."""
    budget = budget_of(arguments, cost_bounds(arguments))
    if budget.uncounted:
        raise InputError(
            f"no space counts with a bound on {budget.uncounted[0][0].name}: a search checks it "
            f"once a placement was drawn; leave it out"
        )
    counted = BudgetedSpace(Space.load(arguments.space, task=arguments.task), budget)
    costs = {"macs": counted.macs_range, "params": counted.params_range}
    inside = counted.macs_range_in_budget
    console.print(f"{counted.space.name}  {counted.space.backbone}", style="bold")
    console.print(f"placements  {counted.size:,}")
    share = counted.in_budget / counted.size
    console.print(f"in budget   {counted.in_budget:,}  ({share:.2%})")
    if counted.in_budget < counted.size:
        console.print(f"  its macs  {format_quantity(inside[0])} to {format_quantity(inside[1])}")
    for name, (least, most) in costs.items():
        console.print(f"{name:11} {format_quantity(least)} to {format_quantity(most)}")
    if head_kind(counted.space.backbone.head).task != DENOISE:
        console.print(f"for {counted.space.backbone.num_classes:,} classes", style="dim")
    convention = convention_of(counted.space.backbone)
    console.print(convention, style="dim")
    return {
        "space": counted.space.name,
        "backbone": str(counted.space.backbone),
        "size": counted.size,
        "in_budget": counted.in_budget,
        "macs_in_budget": {"min": inside[0], "max": inside[1]},
        **{name: {"min": least, "max": most} for name, (least, most) in costs.items()},
        "convention": convention,
    }


def cost(arguments: argparse.Namespace, console: Console) -> Document:
    """Run `sharedattn cost`: print the closed-form cost, and with --check two counters'."""
    spec = resolve(NetworkSpec.parse(arguments.network, task=arguments.task))
    costs = CostModel(spec.backbone)
    figures, head = costs.cost(spec.placement), HEADS[spec.backbone.head]
    convention = convention_of(spec.backbone)
    of_head = {"params": costs.shape.head_params, "macs": costs.shape.head_macs}
    document: Document = {
        "network": str(spec),
        **figures.to_json(),
        "task": head.task,
        "head": {"name": head.name, **of_head},
        "convention": convention,
    }
    console.print(f"{spec} at {figures.image_size} pixels", style="bold")
    console.print(cost_table(figures))
    classes = "" if head.task == DENOISE else f"{spec.backbone.num_classes:,} classes, "
    console.print(
        f"head {head.title}, {classes}in rest: {of_head['params']:,} params, "
        f"{of_head['macs']:,} MACs"
    )
    console.print(f"attention memory {figures.attention_bytes:,} bytes an image")
    document["less_attention"] = []
    for stage, sizes in enumerate(costs.shape.stages):
        if sizes.convolution is not None:
            continue
        economics = less_attention_economics(costs, stage)
        document["less_attention"].append(economics.to_json())
        console.print(f"stage {stage + 1}: {economics_text(economics)}")
    if arguments.check:
        # Imported here: fvcore is slow to import, and only --check needs it.
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
    console.print(convention, style="dim")
    return document


def papers(arguments: argparse.Namespace, console: Console) -> Document:
    """Run `sharedattn papers`: print published figures beside ours, and why they differ."""
    # Imported here: other commands do not need the papers' networks.
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
    """Run `sharedattn front`: print a study's front so far."""
    with _open(arguments) as store:
        study = _study(store, arguments.study)
        summary = StudySummary.read(store, study)
    path = arguments.out / study.record.name / "report.html"
    console.print(study.record.name, style="bold")
    print_front(summary, console)
    print_failures(summary, console)
    return front_document(summary, report=path if path.is_file() else None)


def report(arguments: argparse.Namespace, console: Console) -> Document:
    """Run `sharedattn report`: write a study's report as one file."""
    with _open(arguments) as store:
        study = _study(store, arguments.study)
        summary = StudySummary.read(store, study)
    path = arguments.out / study.record.name / "report.html"
    write_report(path, summary, convention=CONVENTION)
    console.print(f"report   {path}")
    return {"study": study.record.name, "report": str(path)}


def explain(arguments: argparse.Namespace, console: Console) -> Document:
    """Run `sharedattn explain`: print what each part of a placement is worth in a study."""
    with _open(arguments) as store:
        summary = StudySummary.read(store, _study(store, arguments.study))
    explanation = explanation_of(summary)
    console.print(explanation.study, style="bold")
    print_explanation(explanation, summary.objectives[0], console)
    return explanation.to_json()


def export(arguments: argparse.Namespace, console: Console) -> Document:
    """Run `sharedattn export`: write one placement to a folder that can rebuild it."""
    with _open(arguments) as store:
        study = _study(store, arguments.study)
        summary = StudySummary.read(store, study)
        name = "".join(c if c.isalnum() else "-" for c in arguments.pick).strip("-")
        folder = arguments.to or arguments.out / study.record.name / name
        placement = summary.pick(arguments.pick).placement
        with TrainingDisplay(progress_console(), "export", placement) as display:
            message = export_placement(
                store,
                summary,
                arguments.pick,
                folder,
                weights=_storage(arguments).weights(
                    arguments.weights_dir or study.record.weights_dir
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
    """Run `sharedattn verify`: check an exported folder against its record."""
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
    """Run `sharedattn train`: train one placement with the whole recipe."""
    check_whole("--seed", arguments.seed, 0, MAX_SEED)
    check_whole("--processes-per-trial", arguments.processes_per_trial, 1, MAX_WORKERS)
    check_target(arguments.to, onnx=arguments.onnx)
    errors = progress_console()
    training = _training(arguments, resolve_device(arguments.device), errors)
    spec = training.spec
    plan = training_plan(training)
    print_plan(plan, errors)
    # It was checked above to be an export, or empty.
    if arguments.to.is_dir() and any(arguments.to.iterdir()):
        errors.print(f"to      {arguments.to}: the export there is replaced", highlight=False)
    if arguments.dry_run:
        return {"network": str(spec), "plan": plan}
    num_processes = processes_here(arguments.processes_per_trial, training.device)
    quality = QUALITIES[head_kind(spec.backbone.head).task]
    before = training.before(seed=arguments.seed)
    if before is not None:
        errors.print(
            f"start   {quality} {before.quality:.4f} on {before.num_images:,} validation images",
            highlight=False,
        )
    with TrainingDisplay(errors, "train", str(spec.placement)) as display:
        record = train_placement(
            replace(
                training,
                num_processes=num_processes,
                shows_curve=arguments.curve,
                on_progress=display.tell,
            ),
            arguments.to,
            seed=arguments.seed,
            onnx=arguments.onnx,
        )
    console.print(str(spec), style="bold")
    console.print(
        f"{quality} {record.evaluation.top1:.4f} on {record.evaluation.num_images:,} validation "
        f"images after {record.evaluation.wall_time_s:.0f} s"
    )
    if before is not None:
        console.print(f"{quality} {before.quality:.4f} on them before this training")
    if record.test_top1 is not None:
        console.print(
            f"{quality} {record.test_top1:.4f} on {record.num_test_images:,} test images"
        )
    curve = _curve(record, console) if arguments.curve else {}
    warnings = training_warnings(record, before)
    for warning in warnings:
        console.print(f"warning: {warning}", style="yellow")
    console.print(f"exported {arguments.to}")
    return {
        "network": str(spec),
        "warnings": warnings,
        **({} if before is None else {f"{quality}_before": before.quality}),
        quality: record.evaluation.top1,
        f"test_{quality}": record.test_top1,
        "macs": record.macs,
        "params": record.params,
        "exported": str(arguments.to),
        **curve,
        "plan": plan,
    }


def _curve(record: ExportRecord, console: Console) -> Document:
    """Print a training's learning curve, and the length of trials that it proposes."""
    curve = validated(record.evaluation.learning_curve)
    step = math.ceil(len(curve) / 8)
    shown = [*curve[step - 1 : -1 : step], curve[-1]]
    console.print("curve   " + ", ".join(f"{epoch}: {value:.3f}" for epoch, value in shown))
    length = trial_length_of(record)
    if length is not None:
        console.print(length.text)
    return {"curve": curve, "trial_length": None if length is None else length.to_json()}


def _training(arguments: argparse.Namespace, device: str, errors: Console) -> PlacementTraining:
    """Set up the training of a network, or of an export again, or the rest of one."""
    check_whole("--more", arguments.more, 1, MAX_COUNT)
    if arguments.head is not None and arguments.weights is None:
        raise InputError("--head requires --weights; leave out --head")
    if arguments.more is not None:
        return _training_on(arguments, device)
    if os.path.exists(arguments.config):  # `Path.exists` raises if the text is too long for a path
        return _training_again(arguments, device)
    options = data_options(arguments)
    parsed = NetworkSpec.parse(arguments.config)
    resolve(parsed)  # a wrong placement is said before the data is looked at
    name, weights = arguments.data or default_data(parsed.backbone), arguments.weights
    named = None if arguments.recipe is None else Recipe.load(arguments.recipe)
    data = data_for(
        parsed.backbone,
        name,
        arguments.data_root,
        arguments.val_fraction,
        options,
        weights=weights,
        recipe=named,
    )
    data = look_at(data, options, None, on_progress=scan_display(errors))
    source = open_checked(data, arguments.val_fraction)
    recipe = recipe_for(
        arguments.recipe,
        source,
        arguments.epochs,
        start="scratch" if weights is None else "weights",
    )
    backbone = for_data(parsed.backbone, source)
    start = None
    if weights is not None:
        backbone = neutral(backbone)
        start = TrainedStart.of(weights, backbone, source, arguments.head or "auto")
        if arguments.recipe is None:
            recipe = for_start(recipe, keeps_head=start.head is None)
    spec = resolve(replace(parsed, backbone=backbone))
    return PlacementTraining(spec=spec, data=data, recipe=recipe, device=device, start=start)


def _training_again(arguments: argparse.Namespace, device: str) -> PlacementTraining:
    """Set up the training of an export, changed by the options."""
    record = read_export(Path(arguments.config))
    source = _data_of_export(arguments, record)
    if arguments.recipe is None and record.starts_from is None:
        recipe = Recipe.from_json(record.recipe)
        if arguments.epochs is not None:
            recipe = recipe.with_changes(epochs=arguments.epochs)
    else:
        # The recipe of an export that started from weights suits a training from these.
        recipe = recipe_for(arguments.recipe, source, arguments.epochs)
    return PlacementTraining(
        spec=resolve(record.spec), data=source.config, recipe=recipe, device=device
    )


def _training_on(arguments: argparse.Namespace, device: str) -> PlacementTraining:
    """Set up a training that goes on from an export's weights."""
    if arguments.epochs is not None:
        raise InputError("--more says for how many epochs, and excludes --epochs; leave it out")
    if not os.path.exists(arguments.config):
        raise InputError(
            f"--more goes on from an exported folder, but there is no {arguments.config!r}; name "
            f"one, or leave --more out to train a network from its start"
        )
    config = Path(arguments.config)
    folder = config if config.is_dir() else config.parent
    if os.path.realpath(arguments.to) == os.path.realpath(folder):
        raise InputError(
            f"--to {arguments.to} is the export that --more goes on from, which is not "
            f"overwritten; name another folder"
        )
    record = read_export(config)
    source = _data_of_export(arguments, record)
    recipe = recipe_for(arguments.recipe, source, arguments.more, start="weights")
    if arguments.recipe is None:
        # An export does not have the model that it was cut from.
        recipe = for_start(recipe, keeps_head=False)
    return PlacementTraining(
        spec=resolve(record.spec),
        data=source.config,
        recipe=recipe,
        device=device,
        start=ExportStart.of(folder, record),
    )


def _data_of_export(arguments: argparse.Namespace, record: ExportRecord) -> DataSource:
    """The data of an export that is trained again, as it is now."""
    given = data_options(arguments).given()
    given += ["--val-fraction"] if arguments.val_fraction else []
    if given:
        raise InputError(
            f"{given[0]} changes the data, and {arguments.config} is an export with data of "
            f'its own; to train its network on other data write "{record.spec}" in its place'
        )
    if arguments.weights is not None:
        raise InputError(
            f"--weights starts a network, and {arguments.config} is an export with weights of its "
            f'own; write "{record.spec}" in its place, or --more in that of --weights'
        )
    return open_recorded(
        record.data,
        f"export {arguments.config}",
        data=arguments.data,
        data_root=arguments.data_root,
    )


def analyze(arguments: argparse.Namespace, console: Console) -> Document:
    """Run `sharedattn analyze`: repeat the papers' measurements, with random controls."""
    # Imported here: matplotlib is slow to import, and only this command plots.
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
    if document["entropy"]:
        console.print(analysis_table(document))
    for line in analysis_notes(document):
        console.print(line)
    console.print(f"analysis {folder}")
    return {**document, "folder": str(folder)}


def doctor(arguments: argparse.Namespace, console: Console) -> Document:
    """Run `sharedattn doctor`: check this machine, or a cluster, before a search."""
    # Imported here: no other command checks the machine.
    from sharedattn.search.cluster.doctor import diagnose

    config = search_config(arguments, executor="local" if arguments.address is None else "ray")
    assert isinstance(config.evaluation, FromScratch)
    checks = diagnose(
        config.evaluation,
        config.compute,
        config.storage,
        task=arguments.task,
        contracts=arguments.plugins,
    )
    document = verify_document(list(checks))
    console.print(checks_table(document["checks"]))
    console.print("ready" if document["ok"] else "not ready", style="bold")
    return document


def _storage(arguments: argparse.Namespace) -> StorageConfig:
    return StorageConfig(storage=arguments.storage, out=arguments.out)


def _open(arguments: argparse.Namespace) -> Store:
    return Store.open(_storage(arguments).url, read_only=True)


def _study(store: Store, name: str | None) -> Study:
    """The named study, or the latest if no name is given."""
    if name is not None:
        return store.study(name)
    studies = store.studies()
    if not studies:
        raise InputError(f"the database {store.url} has no study; run sharedattn search first")
    return studies[-1]
