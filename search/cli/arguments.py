"""The commands and their options for argparse; imports nothing slow."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from sharedattn.errors import InputError
from sharedattn.objectives import cost_objectives
from sharedattn.search.cli.output import StandardOutput
from sharedattn.tasks import CLASSIFY, QUALITIES, TASKS
from sharedattn.units import COUNT, Share, parse_bound

_Add = Callable[[str, str], argparse.ArgumentParser]

_SPACE = "a preset's name, also with an image size as in pvt-tiny@64x96, or a YAML file"


class _Parser(argparse.ArgumentParser):
    """Argument parser that reports errors in the form of all our commands."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")

    # By a command, whose own help is the one to see.
    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            raise InputError(
                f"unrecognized arguments: {' '.join(unknown)}; see {self.prog} {parsed.command} "
                f"--help"
            )
        return parsed

    def _print_message(self, message: str, file: Any = None) -> None:
        # argparse ignores errors of writing its help.
        output = StandardOutput()
        output.write(message)
        output.flush()


def parser() -> argparse.ArgumentParser:
    """Build the parser, which reads `command` and the options of that command."""
    root = _Parser(
        prog="sharedattn",
        description="Search where a vision transformer needs full attention.",
    )
    commands = root.add_subparsers(metavar="COMMAND", dest="command", required=True)

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary)
        command.add_argument("--json", action="store_true", help="print one JSON document")
        return command

    _add_search(add("search", "search a space; goes on where an earlier run stopped"))
    _add_figures(add)
    _add_studies(add)
    _add_networks(add)
    doctor = add("doctor", "whether this machine, or a cluster, is ready for a search")
    doctor.add_argument("--address", metavar="HOST:PORT", help="of a Ray cluster, or auto")
    doctor.add_argument("--data", metavar="NAME|DIR", help="data set (default: embedded)")
    doctor.add_argument("--data-root", metavar="DIR", help="folder of a named data set")
    doctor.add_argument(
        "--task", choices=TASKS, default=CLASSIFY, help="what the data is for (default: classify)"
    )
    _add_storage(doctor)
    doctor.add_argument("--weights-dir", metavar="DIR|URL", help="of weights and checkpoints")
    _add_resources(doctor)
    _add_device(doctor)
    doctor.add_argument(
        "--plugins", action="store_true", help="hold what plug-ins add to its contract"
    )
    return root


def _add_figures(add: _Add) -> None:
    """Add the commands that print figures of spaces and networks and need no data."""
    space = add("space", "a space's size, its ranges of cost, its share in a budget")
    space.add_argument("space", metavar="SPACE", help=_SPACE)
    _add_task(space, "a network", "the space")
    _add_budget(space)

    cost = add("cost", "params, MACs and attention memory of one network")
    cost.add_argument("network", metavar="PLACEMENT", help='"backbone: placement"')
    cost.add_argument("--check", action="store_true", help="count the built network as well")
    _add_task(cost, "the network", "the network")

    papers = add("papers", "the papers' published figures beside ours, with what explains them")
    papers.add_argument("--to", type=Path, metavar="FILE", help="write a Markdown page as well")


def _add_task(command: argparse.ArgumentParser, what: str, named_by: str) -> None:
    command.add_argument(
        "--task",
        choices=TASKS,
        help=f"what {what} says of an image, by the head of that task (default: the one that "
        f"{named_by} names, or classify)",
    )


def _add_studies(add: _Add) -> None:
    """Add the commands that read a study's database."""
    front = add("front", "a study's Pareto front and its hypervolume")
    _add_study(front)

    report = add("report", "write a study's report, one self-contained HTML file")
    _add_study(report)

    explain = add("explain", "what each part of a placement is worth in a study, and where to pay")
    _add_study(explain)

    export = add("export", "write one placement of a study's front as a folder")
    _add_study(export)
    export.add_argument(
        "--pick",
        default="knee",
        help='knee, best, an id, or a cost such as "macs<1.2G", "latency_ms<3" (default: knee)',
    )
    export.add_argument("--to", type=Path, metavar="DIR", help="folder to write")
    export.add_argument("--onnx", action="store_true", help="write model.onnx as well")
    export.add_argument("--weights-dir", metavar="DIR|URL", help="where the weights are now")
    _add_moved_data(export)
    _add_device(export)


def _add_networks(add: _Add) -> None:
    """Add the commands that run one network."""
    verify = add("verify", "rebuild an exported network and check every figure of it")
    verify.add_argument("folder", type=Path, metavar="DIR")
    _add_moved_data(verify)
    _add_device(verify)

    train = add("train", "train one placement in full, and export it")
    train.add_argument("config", metavar="CONFIG", help='config.yaml, or "backbone: placement"')
    train.add_argument(
        "--to", "--out", type=Path, metavar="DIR", required=True, help="folder to write"
    )
    _add_training(train)
    _add_weights(train, "a trained model to start from")
    train.add_argument(
        "--more", metavar="N", type=int, help="go on from the weights of the export CONFIG"
    )
    train.add_argument("--seed", type=int, default=0)
    train.add_argument(
        "--curve",
        action="store_true",
        help="validate after every epoch, and propose how long trials of a search should be",
    )
    train.add_argument("--onnx", action="store_true", help="write model.onnx as well")
    _add_processes(train, "that train it together (default: 1)")
    _add_device(train)

    analyze = add("analyze", "what the papers measured, beside random initialisations")
    analyze.add_argument("config", metavar="CONFIG", help='DIR, or "backbone: placement"')
    _add_moved_data(analyze)
    analyze.add_argument(
        "--against", type=Path, metavar="DIR", help="the same network trained with CB, or without"
    )
    analyze.add_argument("--images", type=int, default=256, help="to measure on (default: 256)")
    analyze.add_argument("--seeds", type=int, default=5, help="random controls (default: 5)")
    analyze.add_argument("--out", type=Path, metavar="DIR", help="(default: CONFIG/analysis)")
    _add_device(analyze)


def _add_search(search: argparse.ArgumentParser) -> None:
    search.add_argument("space", metavar="SPACE", nargs="?", default=None, help=_SPACE)
    _add_task(search, "each network", "the space")
    _add_training(search)
    _add_budget(search)
    _add_storage(search)
    search.add_argument(
        "--trials",
        dest="num_trials",
        metavar="N",
        type=int,
        help="search trials, a total (default: 24; on digit-count 12; of a supernet all members)",
    )
    search.add_argument("--study", help="the study's name (default: made from what is searched)")
    search.add_argument(
        "--objectives",
        type=_names,
        metavar="NAME,NAME",
        help=f"the quality ({', '.join(QUALITIES.values())}, by the task), then of "
        f"{', '.join(cost.name for cost in cost_objectives())} (default: it and macs)",
    )
    search.add_argument(
        "--max-latency-ms",
        type=float,
        metavar="MS",
        help="short for --max latency_ms=MS, of a forward on this device",
    )
    search.add_argument(
        "--latency-batch-size", type=int, metavar="N", help="images of that forward (default: 1)"
    )
    search.add_argument(
        "--searcher", help="model, tpe, nsga2, stratified or random (default: model)"
    )
    search.add_argument(
        "--prior",
        metavar="STUDY",
        help="begin with what a study of the same database says of accuracies: of a supernet, of "
        "shorter trials, of other data",
    )
    _add_evaluation(search)
    search.add_argument("--executor", choices=("local", "ray"), default="local")
    search.add_argument("--address", metavar="HOST:PORT", help="Ray cluster (default: one here)")
    search.add_argument(
        "--workers",
        dest="num_workers",
        metavar="N",
        type=int,
        help="trials at once (default: what fits)",
    )
    _add_resources(search)
    _add_processes(search, "(default: one for each GPU)")
    search.add_argument("--early-stopping", metavar="RULE", help="stop trials: mo-asha")
    search.add_argument("--rungs", type=_epochs, metavar="N,N", help="epochs to judge trials at")
    search.add_argument("--deterministic", action="store_true", help="the same trials every time")
    search.add_argument("--confirm-seeds", type=int, help="seeds of a front member (default: 3)")
    search.add_argument(
        "--final-epochs",
        type=int,
        metavar="N",
        help="train the front's members for N epochs (default: as its trials)",
    )
    search.add_argument(
        "--baselines",
        choices=("naive", "none"),
        help="train what one would try by hand beside the front (default: naive with --weights)",
    )
    search.add_argument("--seed", type=int, default=0)
    search.add_argument("--weights-dir", metavar="DIR|URL", help="of weights and checkpoints")
    _add_device(search)


def _add_evaluation(search: argparse.ArgumentParser) -> None:
    search.add_argument(
        "--evaluator",
        default="scratch",
        help="scratch, supernet, table, or one that a plug-in adds (default: scratch)",
    )
    search.add_argument("--supernet-recipe", metavar="NAME|FILE", help="how to train it")
    search.add_argument("--supernet-epochs", type=int, help="in place of its recipe's")
    _add_weights(search, "a trained model that the supernet starts from")
    search.add_argument(
        "--front-training",
        choices=("fine-tune", "retrain"),
        help="from the supernet's weights, or from scratch (default: fine-tune)",
    )
    search.add_argument(
        "--table",
        type=Path,
        metavar="FILE",
        help="JSON of placement: top1, or .npz of PlacementBench (default: the shipped one)",
    )
    search.add_argument(
        "--table-part",
        choices=("measured", "surrogate"),
        help="of PlacementBench: its measured placements, or predictions of the whole space "
        "(default: measured)",
    )


def _add_training(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data", metavar="NAME|DIR", help="data set (default: embedded)")
    command.add_argument("--data-root", metavar="DIR", help="folder of a named data set")
    command.add_argument("--val-fraction", type=float, help="of train, where there is no val/")
    command.add_argument("--recipe", metavar="NAME|FILE", help="how to train")
    command.add_argument("--epochs", type=int, help="in place of the recipe's")
    command.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and do none of it"
    )
    data = command.add_argument_group("data on disk")
    data.add_argument(
        "--test-split",
        type=_share,
        metavar="SHARE|none",
        help="of train, where there is no test/ (default: as of validation)",
    )
    data.add_argument("--classes", type=Path, metavar="FILE", help="a folder's classes, in order")
    data.add_argument(
        "--on-bad-image", choices=("fail", "skip"), help="what to do with it (default: fail)"
    )
    data.add_argument(
        "--scan",
        choices=("auto", "full"),
        help="decode every image first, or above 100,000 read headers alone (default: auto)",
    )
    pixels = command.add_argument_group("pixels, in place of the model's own")
    pixels.add_argument("--pixels", metavar="TAG", help="those of a tag of timm's weights")
    pixels.add_argument("--mean", type=_numbers, metavar="N,N,N", help="of images from 0 to 1")
    pixels.add_argument("--std", type=_numbers, metavar="N,N,N")
    pixels.add_argument("--interpolation", metavar="NAME", help="bicubic, bilinear, ...")
    pixels.add_argument("--crop-pct", type=float, metavar="SHARE", help="of the resized image")
    pixels.add_argument("--crop-mode", metavar="NAME", help="center, squash or border")


def _add_weights(command: argparse.ArgumentParser, summary: str) -> None:
    command.add_argument("--weights", metavar="FILE|timm", help=summary)
    command.add_argument(
        "--head",
        choices=("auto", "keep", "replace"),
        help="of that model: replaced by one fitted to the data's classes if their number "
        "differs, kept, or replaced (default: auto)",
    )


def _add_moved_data(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data", metavar="NAME|DIR", help="where the data is now")
    command.add_argument("--data-root", metavar="DIR", help="where a named data set is now")


def _add_budget(command: argparse.ArgumentParser) -> None:
    names = ", ".join(cost.name for cost in cost_objectives())
    command.add_argument(
        "--max",
        dest="bounds",
        action="append",
        metavar="NAME=VALUE",
        help=f"the most that a placement may cost, once for each of {names}: such as "
        f"attention_bytes=64M, or macs=67%% of the backbone as published; K, M and G are powers "
        f"of 1000, of bytes as well",
    )
    for cost in ("macs", "params"):
        command.add_argument(
            f"--max-{cost}", type=_count_or_share, metavar="N|N%", help=f"short for --max {cost}=N"
        )
    command.add_argument(
        "--min-macs",
        type=_count_or_share,
        metavar="N|N%",
        help="the fewest MACs, so that nothing is spent on placements far below a budget",
    )


def _add_storage(command: argparse.ArgumentParser) -> None:
    command.add_argument("--storage", metavar="URL", help="database (default: a file in --out)")
    command.add_argument("--out", type=Path, metavar="DIR", default=Path("sharedattn-out"))


def _add_study(command: argparse.ArgumentParser) -> None:
    command.add_argument("study", nargs="?", help="the study's name (default: the latest)")
    _add_storage(command)


def _add_processes(command: argparse.ArgumentParser, summary: str) -> None:
    command.add_argument("--processes-per-trial", type=int, metavar="N", help=summary)


def _add_resources(command: argparse.ArgumentParser) -> None:
    command.add_argument("--cpus-per-trial", type=int, metavar="N", help="cores and threads")
    command.add_argument("--gpus-per-trial", type=float, metavar="N", help="0.5 shares one")
    command.add_argument(
        "--resources-per-trial",
        type=_amounts,
        metavar="NAME=N,...",
        help="of a cluster's own resources",
    )


def _add_device(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _share(text: str) -> float:
    if text == "none":
        return 0.0
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    # 0 is spelled `none`, so that nobody loses the test split by mistake.
    if not 0.0 < share < 1.0:
        raise argparse.ArgumentTypeError(
            f"it is {text!r}; give a share above 0 and below 1, or none"
        )
    return share


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"it is {text!r}; give numbers between commas, one a channel"
        ) from error


def _epochs(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(epoch) for epoch in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"`--rungs` is {text!r}; write whole numbers between commas, such as 1,3"
        ) from error


def _amounts(text: str) -> dict[str, float]:
    try:
        pairs = [part.split("=") for part in text.split(",")]
        amounts = {name: float(amount) for name, amount in pairs}
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"resources are NAME=AMOUNT between commas, but got {text!r}"
        ) from error
    if len(amounts) < len(pairs):
        raise argparse.ArgumentTypeError(f"a resource is named once, but got {text!r}")
    return amounts


def _count_or_share(text: str) -> float | Share:
    # argparse would replace a ValueError's message with its own, which omits the rule.
    try:
        return parse_bound(text, COUNT)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
