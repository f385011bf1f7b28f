"""The plan that a command prints before it begins: data, pixels, and expected cost."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from sharedattn.backbones import build, resolve
from sharedattn.costs.model import CostModel
from sharedattn.costs.timing import torch_threads
from sharedattn.data import DataConfig, DataSource
from sharedattn.data.balance import imbalance_warnings
from sharedattn.data.source import SplitName
from sharedattn.image_size import ImageSize
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement
from sharedattn.recipe import Recipe
from sharedattn.results.records import Document
from sharedattn.search.evaluators.started import ExportStart
from sharedattn.spaces.budget import Budget, BudgetedSpace, published_costs
from sharedattn.training.tasks.registry import task_training
from sharedattn.training.trainer import training_loss
from sharedattn.units import format_quantity
from sharedattn.weights.trained_start import TrainedStart

MAX_CLASSES_NAMED = 8
_MEASURED_IMAGES = 16  # images of the timed step on a CPU, where time grows with their number
_MEASURED_PLACEMENTS = 9  # drawn uniformly; the one with median MACs is timed
# Adam keeps two numbers beside each weight.
_CHECKPOINT_COPIES = 3
_BYTES_PER_PARAM = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The trainings ahead.

    Attributes:
        backbone: backbone of every network.
        placements: the only placement, or a uniform sample of those that may be trained.
        macs_range: fewest and most MACs of those that may be trained.
        recipe: the training recipe.
        num_trainings: number of trainings.
        num_slots: number of trainings at once.
        num_seeds: number of seeds of each member of the front; 1 for no confirmation.
        trains_baselines: whether networks made by hand are trained after the front.
        threads: torch threads of each training.
        device: device of each training.
        is_here: whether this machine trains.
        is_supernet: whether one network is trained for all placements, and their front afterwards.
        member_epochs: epochs of each training after a supernet's; 0 without a supernet.
        placements_per_step: number of placements per training step.
    """

    backbone: BackboneSpec
    placements: Sequence[Placement]
    macs_range: tuple[int, int]
    recipe: Recipe
    num_trainings: int
    num_slots: int
    num_seeds: int
    trains_baselines: bool = False
    threads: int
    device: str
    is_here: bool
    is_supernet: bool = False
    member_epochs: int = 0
    placements_per_step: int = 1


def drawn_placements(space: BudgetedSpace, seed: int) -> list[Placement]:
    """A few placements drawn uniformly inside the budget, to be ordered by MACs."""
    rng = random.Random(seed)
    return [space.sample(rng) for _ in range(min(_MEASURED_PLACEMENTS, space.in_budget))]


def data_plan(config: DataConfig, source: DataSource) -> Document:
    """Images and classes by split, their origin, what was left out, and the pixels."""
    splits: tuple[SplitName, ...] = ("train", "validation", "test")
    names = source.class_names
    pixels = source.pixels
    return {
        "name": source.name,
        "path": config.name if config.is_folder else None,
        "fingerprint": source.fingerprint,
        "num_classes": source.num_classes,
        "classes": None if names is None else list(names),
        "splits": {
            split: {
                "images": source.num_images(split),
                "from": source.origins.get(split),
                "by_class": _listed(source.class_counts(split)),
            }
            for split in splits
            if source.num_images(split)
        },
        "left_out": list(source.notes),
        "warnings": imbalance_warnings(source.class_counts("validation") or (), names or ()),
        "pixels": {
            "image_size": source.image_size.to_json(),
            "in_chans": source.in_chans,
            **({} if pixels is None else pixels.to_json()),
        },
    }


def cost_plan(work: Work, source: DataSource) -> Document:
    """Cost of the trainings: MACs exactly, time from one measured step, disk approximately."""
    params = [CostModel(work.backbone).totals(placement).params for placement in work.placements]
    num_images = source.num_images("train")
    document: Document = {
        "trainings": work.num_trainings,
        "at_once": work.num_slots,
        "further_seeds": work.num_seeds - 1,
        "baselines": work.trains_baselines,
        "epochs": work.recipe.epochs,
        "images_per_epoch": num_images,
        "batch_size": work.recipe.batch_size,
        "supernet": work.is_supernet,
        "macs": {"min": work.macs_range[0], "max": work.macs_range[1]},
        "weights_bytes": max(params) * _BYTES_PER_PARAM,
        "checkpoint_bytes": max(params) * _BYTES_PER_PARAM * _CHECKPOINT_COPIES,
        "measured": None,
        "hours": None,
        "member_epochs": work.member_epochs,
        "member_hours": None,
    }
    if work.is_here:
        placement, seconds = measure_step(work, source)
        training_s = seconds * num_images * work.recipe.epochs
        rounds = -(-work.num_trainings // work.num_slots)
        document["measured"] = {"placement": str(placement), "ms_per_image": 1e3 * seconds}
        document["hours"] = rounds * training_s / 3600
        if work.is_supernet:
            # With all cores, as the supernet's: several at a time are each slower by as much.
            member_s = seconds / work.placements_per_step * num_images * work.member_epochs
            document["member_hours"] = member_s / 3600
    return document


def measure_step(work: Work, source: DataSource) -> tuple[Placement, float]:
    """Time one training step of the drawn placement with median MACs.

    Returns:
        The placement, and seconds per image including loading: on a CPU, loading and training
        share the cores; with a GPU, the slower of the two counts.
    """
    costs = CostModel(work.backbone)
    ordered = sorted(work.placements, key=lambda placement: costs.totals(placement).macs)
    placement = ordered[len(ordered) // 2]
    device = torch.device(work.device)
    recipe = work.recipe
    size = recipe.batch_size
    if device.type == "cpu":
        size = min(size, _MEASURED_IMAGES)
    # Restores the random state, so that later draws are unaffected.
    with torch.random.fork_rng(devices=[]), torch_threads(work.threads):
        spec = resolve(NetworkSpec(work.backbone, placement))
        network = build(spec, drop_path_rate=recipe.drop_path_rate).to(device).train()
        shape = (size, source.in_chans, *source.image_size)
        images = torch.randn(shape, device=device)
        task = task_training(network)
        example = task.training_example(images, task.random_targets(size, device))
        times = []
        for _ in range(4):
            started = time.perf_counter()
            loss, _ = training_loss(task, network.run, example, recipe)
            loss.backward()  # type: ignore[no-untyped-call]
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - started)
    # The first step includes one-time set-up. What else runs on the machine only adds to a step,
    # and most to several threads that wait for each other.
    step_s = min(times[1:]) / size
    load_s = _measure_loading(work, source)
    if device.type == "cpu":
        return placement, step_s * work.placements_per_step + load_s / work.threads
    return placement, max(step_s * work.placements_per_step, load_s / work.threads)


def _measure_loading(work: Work, source: DataSource) -> float:
    """Seconds that one process needs to load an image of a training batch."""
    if source.pixels is None:
        # Nothing is decoded: an epoch of batches is generated in memory at once.
        return 0.0
    recipe = replace(work.recipe, loader_workers=0)
    started = time.perf_counter()
    batches = source.train_batches(recipe, seed=0, epoch=0, device=torch.device("cpu"))
    images, _ = next(iter(batches))
    return (time.perf_counter() - started) / len(images)


def start_plan(start: TrainedStart | ExportStart) -> Document:
    """The weights that are started from, and what becomes of them."""
    return {**start.to_json(), "text": start.text}


def budget_plan(asked: Budget, space: BudgetedSpace) -> list[Document]:
    """What the bounds that are shares come to, on the backbone that is evaluated.

    Args:
        asked: the budget as it was given.
        space: the space inside it.
    """
    if not (asked.shares or asked.min_share):
        return []
    published, budget = published_costs(space.space.backbone), space.budget
    bounds = [("max", name, share, dict(budget.bounds)[name]) for name, share in asked.shares]
    if asked.min_share is not None and budget.min_macs is not None:
        bounds.append(("min", "macs", asked.min_share, budget.min_macs))
    return [
        {"bound": f"{side}_{name}", "share": str(share), "of": published[name], "value": value}
        for side, name, share, value in bounds
    ]


def budget_lines(bounds: Sequence[Document]) -> list[str]:
    """The `budget_plan` as lines of text."""
    return [
        f"budget  {bound['bound']} is {format_quantity(bound['value'])}: {bound['share']} of the "
        f"{format_quantity(bound['of'])} of the backbone as published"
        for bound in bounds
    ]


def of_classes(num_classes: int, names: Sequence[str] | None) -> str:
    """` of 6 classes`, or nothing for unlabelled images, which are of one class without a name."""
    is_labelled = names is not None or num_classes > 1
    return f" of {num_classes:,} classes" if is_labelled else ""


def plan_lines(
    data: Document, cost: Document | None, weights: Document | None = None
) -> list[str]:
    """The plan as lines of text, each beginning with its subject."""
    splits = data["splits"]
    total = sum(split["images"] for split in splits.values())
    where = f" in {data['path']}" if data["path"] else ""
    names = data["classes"]
    classes = of_classes(data["num_classes"], names)
    if names is not None:
        more = ", ..." if len(names) > MAX_CLASSES_NAMED else ""
        classes += f" ({', '.join(names[:MAX_CLASSES_NAMED])}{more})"
    lines = [f"data    {data['name']}{where}: {total:,} images{classes}"]
    lines.append(
        "        "
        + "; ".join(
            f"{split} {part['images']:,}" + (f" from {part['from']}" if part["from"] else "")
            for split, part in splits.items()
        )
        + ("" if "test" in splits else "; no test split")
    )
    lines += [f"        {note}" for note in data["left_out"]]
    lines += [f"        warning: {warning}" for warning in data["warnings"]]
    lines.append(f"pixels  {_pixels_text(data['pixels'])}")
    if weights is not None:
        lines.append(f"weights {weights['source']}: {weights['text']}")
    if cost is not None:
        lines += _cost_lines(cost)
    return lines


def _pixels_text(pixels: Document) -> str:
    size = ImageSize.of(pixels["image_size"])
    if "mean" not in pixels:
        return f"{size.spaced}, as the data has them"
    resized = ImageSize(*(math.floor(side / pixels["crop_pct"]) for side in size))
    how = (
        {
            "center": f"shorter edge resized to {resized}, centre cropped",
            "squash": f"both edges resized to {resized}, centre cropped",
            "border": f"longer edge resized to {resized}, padded with the mean or cropped",
        }
        if size.height == size.width
        else {
            "center": f"resized to cover {resized.spaced}, centre cropped",
            "squash": f"both edges resized to {resized.spaced}, centre cropped",
            "border": f"resized to fit into {resized.spaced}, padded with the mean or cropped",
        }
    )[pixels["crop_mode"]]
    mean, std = (" ".join(f"{n:.4g}" for n in pixels[name]) for name in ("mean", "std"))
    return f"{size.spaced}, {how}, {pixels['interpolation']}; mean {mean}, std {std}"


def _cost_lines(cost: Document) -> list[str]:
    macs = cost["macs"]
    what = f"{cost['trainings']:,} training{'s' if cost['trainings'] != 1 else ''}"
    if cost["supernet"]:
        what = "one supernet"
    elif cost["trainings"] > 1:
        what += f", {cost['at_once']} at a time,"
    each = format_quantity(macs["min"])
    if macs["max"] != macs["min"]:
        each += f" to {format_quantity(macs['max'])}"
    epochs = f"{cost['epochs']:,} epoch{'s' if cost['epochs'] != 1 else ''}"
    lines = [
        f"cost    {what} of {epochs} of {cost['images_per_epoch']:,} images in batches of "
        f"{cost['batch_size']:,}; {each} MACs an image"
    ]
    if cost["measured"] is None:
        lines.append("        time not measured here: trainings run on other machines")
    else:
        measured = cost["measured"]
        further = cost["further_seeds"]
        by_hand = " and of what one would try by hand" if cost["baselines"] else ""
        lines.append(
            f"        about {duration_text(cost['hours'] * 3600)}, by a step of "
            f"{measured['placement']} measured now ({measured['ms_per_image']:.3g} ms an image)"
            + (
                f"; then scores, and the trainings of the front{by_hand}, for each seed, of "
                f"{cost['member_epochs']:,} epochs: about "
                f"{duration_text(cost['member_hours'] * 3600)} each on all cores"
                if cost["supernet"]
                else f"; then {further} more of each front member"
                if further
                else ""
            )
            + ("; then what one would try by hand" if by_hand and not cost["supernet"] else "")
        )
    lines.append(
        f"        disk: up to {bytes_text(cost['weights_bytes'])} a kept network, "
        f"{bytes_text(cost['checkpoint_bytes'])} a training under way"
    )
    return lines


def duration_text(seconds: float) -> str:
    """Format a duration, such as `40 s`, `12 min`, `3 h 20 min`, `5 days`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{round(minutes / 60 / 24)} days"


def bytes_text(count: int) -> str:
    """Format a number of bytes, such as `13 kB`, `1.4 MB` or `23 MB`."""
    if count < 10**6:
        return f"{count / 1e3:,.0f} kB"
    return f"{count / 1e6:.1f} MB" if count < 10**7 else f"{count / 1e6:,.0f} MB"


def _listed(counts: Sequence[int] | None) -> list[int] | None:
    return None if counts is None else list(counts)
