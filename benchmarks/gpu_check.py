"""Check and measure the library on one GPU in eight minutes.

    python benchmarks/gpu_check.py [--small] [--device cuda] [--seconds 480] [--out FOLDER]

Runs from a clone that is not installed and needs torch and timm, with what timm needs, alone. Its
sections: the checks of `gpu_checks.py`; bfloat16 and TF32 against float32; training against a
plain loop of timm's parts; a step of the supernet, compiled and not; latency; layers of every
mechanism against a vanilla layer; and throughput of published models, as ratios beside the
printed ones. It prints one line of JSON and then the tables of docs/measurements/gpu.md.

Each section has a share of the time, plus what earlier ones leave of theirs. One that would take
longer is stopped, and shown with what it has by then. One that fails is shown with its error, the
others run, and the exit code is 1. `--small` runs every section at sizes for a CPU, in a minute.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import signal
import statistics
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
# timm 1.0.31 warns at import of its own use of torch.jit.
warnings.filterwarnings("ignore", message=".*torch.jit.*")

import timm  # noqa: E402
import torch  # noqa: E402
from gpu_checks import CHECKS, Synthetic, exact_float32  # noqa: E402
from timm.optim import create_optimizer_v2  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from sharedattn.backbones import build, describe, resolve  # noqa: E402
from sharedattn.costs.latency import LatencySetting, measure_network  # noqa: E402
from sharedattn.costs.model import CostModel  # noqa: E402
from sharedattn.costs.timing import (  # noqa: E402
    Timing,
    device_name,
    elapsed_ms,
    time_call,
    torch_threads,
)
from sharedattn.errors import InputError  # noqa: E402
from sharedattn.image_size import ImageSize  # noqa: E402
from sharedattn.papers.less_attention import BASELINES, MODELS, NEAREST  # noqa: E402
from sharedattn.placement import (  # noqa: E402
    BackboneSpec,
    Envelope,
    LayerChoice,
    NetworkSpec,
    Placement,
)
from sharedattn.recipe import Recipe  # noqa: E402
from sharedattn.supernet.trainer import (  # noqa: E402
    SupernetRecipe,
    SupernetTrainer,
    supernet_network,
)
from sharedattn.training.trainer import Trainer  # noqa: E402

Row = dict[str, Any]

# Table of models of the CVPR 2024 poster of LaViT (arXiv:2406.00427): images per second on a GPU
# that it does not name.
PRINTED_SPEEDS = {
    "LaViT-T": 2098, "LaViT-S": 1546, "LaViT-B": 877,
    "PVT-T": 1768, "PVT-S": 1007, "PVT-M": 680, "PVTv2-b1": 1231, "PVTv2-b2": 695,
    "DeiT-T": 3398, "DeiT-S": 1551, "DeiT-B": 582, "Swin-T": 961, "Swin-S": 582, "Swin-B": 386,
}  # fmt: skip
PAIRS = (
    ("LaViT-T", "PVT-T"),
    ("LaViT-S", "PVT-S"),
    ("LaViT-B", "PVT-M"),
    ("PVTv2-b1", "PVT-T"),
    ("PVTv2-b2", "PVT-S"),
    ("PVT-S", "DeiT-S"),
    ("Swin-T", "DeiT-S"),
    ("DeiT-S", "DeiT-T"),
)
"""Models whose printed speeds are compared, those of nearly equal shapes first."""
LAYERS = {
    "vanilla": "V2",
    "less": "V1L1",
    "less, keys": "V,L/keys",
    "less, low rank 16": "V,L/lowrank16",
    "less, reuse": "V,L/reuse",
    "external, 64 slots": "V1E1/s64",
    "vanilla with DIA": "V2/dia1",
    "vanilla with CB": "V2/cb",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large the measured things are.

    Attributes:
        model: timm's name of the trained model.
        image_size: its pixels on a side.
        depth: its number of layers.
        batch_size: images of a training step.
        steps: steps of a timed epoch.
        rounds: timed repeats; odd.
        latency_batches: batches of the latencies.
        tokens: token counts of the layers.
        tokens_per_batch: tokens of a whole batch of layers, which gives the number of images.
        width: width of the layers, with 64 channels a head.
        pairs: number of pairs of `PAIRS`.
        pair_batch: images per forward pass of their models.
    """

    model: str
    image_size: int
    depth: int
    batch_size: int
    steps: int
    rounds: int
    latency_batches: tuple[int, ...]
    tokens: tuple[int, ...]
    tokens_per_batch: int
    width: int
    pairs: int
    pair_batch: int


FULL = Sizes(
    model="deit_small_patch16_224",
    image_size=224,
    depth=12,
    batch_size=256,
    steps=10,
    rounds=3,
    latency_batches=(1, 64),
    tokens=(197, 1024, 4096),
    tokens_per_batch=32_768,
    width=384,
    pairs=len(PAIRS),
    pair_batch=128,
)
SMALL = Sizes(
    model="vit_tiny_patch16_224",
    image_size=32,
    depth=2,
    batch_size=4,
    steps=2,
    rounds=1,
    latency_batches=(1,),
    tokens=(17,),
    tokens_per_batch=64,
    width=64,
    pairs=1,
    pair_batch=1,
)


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and at which sizes a section runs: a torch device, and the sizes."""

    device: str
    sizes: Sizes

    @property
    def is_cuda(self) -> bool:
        return torch.device(self.device).type == "cuda"

    @property
    def repeats(self) -> dict[str, int]:
        """Timed calls and those before them, for `time_call`."""
        small = self.sizes is SMALL
        return {"repeats": 1, "warm_ups": 1} if small else {"repeats": 11, "warm_ups": 3}

    def autocast(self, amp: str) -> Any:
        """The autocast of a recipe's `amp`, which has no effect on a CPU."""
        on = amp != "none" and self.is_cuda
        return torch.autocast(self.device, dtype=torch.bfloat16) if on else nullcontext()

    def spec(self, placement: str) -> Any:
        """The trained model with a placement."""
        sizes = self.sizes
        keys = f"depth={sizes.depth},num_classes=10"
        return resolve(NetworkSpec.parse(f"{sizes.model}({keys})@{sizes.image_size}: {placement}"))


class TimeUpError(BaseException):
    """A section's time is up; no Exception, which a compiler might answer."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TimeUpError in the block after so many seconds."""

    def end(signum: int, frame: object) -> None:
        raise TimeUpError

    before = signal.signal(signal.SIGALRM, end)
    # Again each second, in case the first is raised where exceptions are ignored.
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def checks(at: Setting) -> Iterator[Row]:
    """The checks, one after the other; a failed one does not end the section."""
    for name, check in CHECKS.items():
        try:
            yield {"check": name, "ok": True, "found": check(at.device)}
        except Exception as error:  # of any kind: the next check may still pass
            yield {"check": name, "ok": False, "error": said_by(error)}


def epoch_speed(trainer: Any, at: Setting) -> float:
    """Images per second of the next epoch."""
    images = at.sizes.batch_size * at.sizes.steps
    return 1e3 * images / elapsed_ms(trainer.run_epoch, at.device)


def recipe(at: Setting, **changes: Any) -> Recipe:
    """A training that is long enough never to validate here."""
    options = {"lr": 1e-3, "schedule": "constant", "label_smoothing": 0.1, **changes}
    return Recipe(epochs=1000, batch_size=at.sizes.batch_size, **options)


def trainer_of(at: Setting, placement: str, **changes: Any) -> Trainer:
    """A training of the model with a placement, on images that are on the device."""
    spec = at.spec(placement)
    data = Synthetic.of(spec, at.sizes.batch_size, at.sizes.steps)
    return Trainer(spec, data, recipe(at, **changes), seed=0, device=at.device)


def amp(at: Setting) -> Iterator[Row]:
    """Speed and loss of bfloat16 and TF32 beside those of float32, from the same weights."""
    base_speed = base_loss = None
    for name, changes in (
        ("float32", {}),
        ("TF32", {"tf32": True}),
        ("bfloat16", {"amp": "bfloat16"}),
    ):
        with exact_float32() if name == "float32" else nullcontext():
            trainer = trainer_of(at, f"V{at.sizes.depth}", **changes)
            trainer.run_epoch()
            speed = statistics.median(epoch_speed(trainer, at) for _ in range(at.sizes.rounds))
        loss = trainer.curve[-1].train_loss
        base_speed, base_loss = base_speed or speed, base_loss or loss
        yield {
            "precision": name,
            "images_per_s": speed,
            "to_float32": speed / base_speed,
            "loss": loss,
            "loss_difference": loss - base_loss,
        }


def plain_epoch(at: Setting) -> Callable[[], None]:
    """An epoch of a plain loop of timm's parts, on the same images, as ours without options."""
    sizes = at.sizes
    torch.manual_seed(0)
    model = timm.create_model(
        sizes.model, img_size=sizes.image_size, depth=sizes.depth, num_classes=10
    )
    model = model.to(at.device).train()
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05)
    data = Synthetic(ImageSize.of(sizes.image_size), 3, 10, sizes.batch_size, sizes.steps)
    images, labels = data.batch(torch.device(at.device))

    def epoch() -> None:
        for _ in range(sizes.steps):
            optimizer.zero_grad(set_to_none=True)
            with at.autocast("bfloat16"):
                logits = model(images)
            F.cross_entropy(logits.float(), labels, label_smoothing=0.1).backward()
            optimizer.step()

    return epoch


def training(at: Setting) -> Iterator[Row]:
    """Images per second of a plain timm loop, of ours, and of ours with each option."""
    images = at.sizes.batch_size * at.sizes.steps
    plain = plain_epoch(at)
    ours = trainer_of(at, f"V{at.sizes.depth}", amp="bfloat16")
    for epoch in (plain, ours.run_epoch):
        elapsed_ms(epoch, at.device)
    pairs = [
        (1e3 * images / elapsed_ms(plain, at.device), epoch_speed(ours, at))
        for _ in range(at.sizes.rounds)
    ]
    speeds = [statistics.median(speed) for speed in zip(*pairs, strict=True)]
    yield {"loop": "plain timm", "images_per_s": speeds[0], "to_plain": 1.0}
    yield {"loop": "ours", "images_per_s": speeds[1], "to_plain": speeds[1] / speeds[0]}
    del plain, ours
    for name, changes in (
        ("ours, channels_last", {"channels_last": True}),
        ("ours, fused_optimizer", {"fused_optimizer": True}),
        ("ours, grad_checkpointing", {"grad_checkpointing": True}),
        ("ours, compile and fused_optimizer", {"compile": True, "fused_optimizer": True}),
    ):
        free(at)
        trainer = trainer_of(at, f"V{at.sizes.depth}", amp="bfloat16", **changes)
        first_s = elapsed_ms(trainer.run_epoch, at.device) / 1e3
        speed = statistics.median(epoch_speed(trainer, at) for _ in range(at.sizes.rounds))
        yield {
            "loop": name,
            "images_per_s": speed,
            "to_plain": speed / speeds[0],
            "first_epoch_s": first_s,
        }


class Listed:
    """Draws from a list."""

    def __init__(self, placements: list[Placement]) -> None:
        self._placements = placements

    def sample(self, rng: random.Random) -> Placement:
        return rng.choice(self._placements)


def supernet(at: Setting) -> Iterator[Row]:
    """A supernet's step (largest, smallest, two drawn), compiled by kinds of layers and not."""
    half = at.sizes.depth // 2
    rest = at.sizes.depth - half
    texts = [f"V{half + rest}", f"V{half}", f"E{half}V{rest}", f"V{half}L{rest}"]
    placements = [Placement.parse(text) for text in texts]
    base_ms = base_loss = None
    for name, compile in (("not compiled", False), ("compiled", True)):
        free(at)
        spec = at.spec(texts[0])
        own = SupernetRecipe(training=recipe(at, amp="bfloat16", compile=compile))
        trainer = SupernetTrainer(
            supernet_network(spec.backbone, Envelope.of(*placements), own, seed=0),
            Synthetic.of(spec, at.sizes.batch_size, at.sizes.steps),
            own,
            largest=placements[0],
            smallest=placements[1],
            sampler=Listed(placements[2:]),
            seed=0,
            device=at.device,
        )
        first_s = elapsed_ms(trainer.run_epoch, at.device) / 1e3
        epochs = [elapsed_ms(trainer.run_epoch, at.device) for _ in range(at.sizes.rounds)]
        step_ms, loss = statistics.median(epochs) / at.sizes.steps, trainer.curve[0].train_loss
        base_ms, base_loss = base_ms or step_ms, base_loss or loss
        yield {
            "supernet": name,
            "step_ms": step_ms,
            "to_not_compiled": step_ms / base_ms,
            "first_epoch_s": first_s,
            "first_loss": loss,
            "loss_difference": loss - base_loss,
        }


def latency(at: Setting) -> Iterator[Row]:
    """Latency of placements as a search measures it, twice, with the difference of both."""
    half = at.sizes.depth // 2
    rest = at.sizes.depth - half
    for batch_size in at.sizes.latency_batches:
        setting = LatencySetting.here(at.device, batch_size)
        base_ms = None
        for placement in (f"V{half + rest}", f"V{half}L{rest}", f"E{half}V{rest}", f"V{half}"):
            free(at)
            timings = [measure_network(at.spec(placement), setting) for _ in range(2)]
            milliseconds = min(timing.median_ms for timing in timings)
            base_ms = base_ms or milliseconds
            yield {
                "placement": placement,
                "batch": batch_size,
                "latency_ms": milliseconds,
                "to_vanilla": milliseconds / base_ms,
                "second_run_differs": abs(timings[1].median_ms / timings[0].median_ms - 1),
                "peak_mib": mebibytes(timings[0].peak_bytes),
            }


def layers(at: Setting) -> Iterator[Row]:
    """Time of one layer's forward, and forward and backward pass, beside a vanilla layer's."""
    for num_tokens in at.sizes.tokens:
        base: tuple[float, float] | None = None
        for name, placement in LAYERS.items():
            free(at)
            row = {"tokens": num_tokens, "layer": name}
            try:
                spec = layer_spec(at, num_tokens, placement)
            except InputError as error:
                yield {**row, "note": f"refused: {said_by(error)}"}
                continue
            timings = layer_times(at, spec)
            times = (timings[0].median_ms, timings[1].median_ms)
            base = base or times
            costs = CostModel(spec.backbone)
            vanilla_macs = costs.layer(0, LayerChoice("V")).macs
            macs = costs.layer(0, spec.placement.stages[0][1]).macs
            yield {
                **row,
                "batch": images_of(at, num_tokens),
                "forward_ms": times[0],
                "forward_to_vanilla": times[0] / base[0],
                "both_ms": times[1],
                "both_to_vanilla": times[1] / base[1],
                "macs_to_vanilla": macs / vanilla_macs,
                "peak_mib": mebibytes(timings[1].peak_bytes),
            }


def images_of(at: Setting, num_tokens: int) -> int:
    """Number of images whose tokens make up a batch of layers."""
    return max(1, at.sizes.tokens_per_batch // num_tokens)


def layer_spec(at: Setting, num_tokens: int, placement: str) -> Any:
    """A ViT of two layers with so many tokens: a square, or one more, the class token."""
    side = int((num_tokens - num_tokens % 2) ** 0.5 + 0.5)
    prefix = num_tokens - side**2
    if prefix not in (0, 1):
        raise InputError(f"{num_tokens} tokens are no square, and no square and a class token")
    head = "class_token=true" if prefix else "class_token=false,global_pool=avg"
    width = at.sizes.width
    text = (
        f"vit({head},depth=2,embed_dim={width},in_chans=3,num_classes=10,num_heads={width // 64},"
        f"patch_size=2)@{2 * side}: {placement}"
    )
    return resolve(NetworkSpec.parse(text))


def layer_times(at: Setting, spec: Any) -> tuple[Timing, Timing]:
    """Time of the second layer: forward, and forward and backward."""
    torch.manual_seed(0)
    network = build(spec).to(at.device).train()
    first, second = spec.placement.stages[0]
    sizes = spec.shape.stages[0]
    images = torch.randn(images_of(at, sizes.num_tokens), 3, *spec.shape.image_size).to(at.device)
    with torch.no_grad(), at.autocast("bfloat16"):
        tokens, state = network.layer(0, 0).run(*network.begin(images), first)
        state = state.keeping(network.held_after(0, (first, second), 0))
    # What comes from the layer before has gradients too, as in a whole network.
    carried: list[Tensor] = [tokens, *state.tensors()]
    for tensor in carried:
        tensor.requires_grad_()

    def forward() -> Tensor:
        with at.autocast("bfloat16"):
            out, _ = network.layer(0, 1).run(tokens, state, second)
        return out

    def both() -> None:
        forward().sum().backward()
        network.zero_grad(set_to_none=True)
        for tensor in carried:
            tensor.grad = None

    with torch.no_grad():
        forward_time = time_call(forward, at.device, **at.repeats)
    return forward_time, time_call(both, at.device, **at.repeats)


def ratios(at: Setting) -> Iterator[Row]:
    """Ratios of throughput, forward in float32, beside those of the printed throughputs."""
    texts = {model: text for model, *_, text in (*BASELINES, *MODELS)}
    speed_of = cache(partial(throughput, at))
    pairs = [(one, texts[one], other) for one, other in PAIRS[: at.sizes.pairs]]
    if at.sizes.pairs == len(PAIRS):
        pairs += [(one, text, other) for one, other in PAIRS if (text := NEAREST.get(one))]
    for one, text, other in pairs:
        # The paper does not give LaViT's shapes: ours are only like it.
        is_like = any(one == model for model, *_ in MODELS)
        yield {
            "model": f"{one}-like" if is_like else one,
            "network": text,
            "beside": other,
            "images_per_s": speed_of(text),
            "beside_images_per_s": speed_of(texts[other]),
            "ratio": speed_of(text) / speed_of(texts[other]),
            "printed_ratio": PRINTED_SPEEDS[one] / PRINTED_SPEEDS[other],
        }


def throughput(at: Setting, text: str) -> float:
    """Images per second of forward passes in eval mode and float32, by the median time."""
    free(at)
    placement = "" if ":" in text else f": {all_vanilla(text)}"
    network = build(resolve(NetworkSpec.parse(f"{text}{placement}"))).to(at.device).eval()
    images = torch.randn(at.sizes.pair_batch, 3, *network.shape.image_size).to(at.device)
    with torch.inference_mode():
        timing = time_call(lambda: network(images), at.device, **at.repeats)
    return 1e3 * at.sizes.pair_batch / timing.median_ms


def all_vanilla(backbone: str) -> Placement:
    """The placement of a backbone as it comes."""
    shape = describe(BackboneSpec.parse(backbone))
    return Placement.all_vanilla(stage.max_depth for stage in shape.stages)


def mebibytes(count: int | None) -> float | None:
    """Bytes in MiB, or None on a CPU, where they are not counted."""
    return None if count is None else count / 2**20


def free(at: Setting) -> None:
    """Give back what earlier measurements held."""
    gc.collect()
    if at.is_cuda:
        torch.cuda.empty_cache()


SECTIONS: dict[str, tuple[float, Callable[[Setting], Iterator[Row]]]] = {
    # section: its share of the time, and what runs it
    "checks": (60.0, checks),
    "layers": (60.0, layers),
    "latency": (30.0, latency),
    "ratios": (50.0, ratios),
    "amp": (50.0, amp),
    "training": (100.0, training),
    "supernet": (120.0, supernet),
}
RESERVE_S = 10.0


def run_section(section: Callable[[Setting], Iterator[Row]], at: Setting, limit_s: float) -> Row:
    """Run a section for at most so long: its rows, whether it was stopped, and its error."""
    started = time.perf_counter()
    found: Row = {"rows": [], "limit_s": limit_s}
    try:
        with at_most(limit_s):
            for row in section(at):
                found["rows"].append(row)
                print(f"  {row}", file=sys.stderr, flush=True)
    except TimeUpError:
        found["stopped"] = f"after its {limit_s:.0f} s, with {len(found['rows'])} rows"
    except Exception as error:  # of any kind: the other sections still run
        found["error"] = said_by(error)
        traceback.print_exc()
    found["seconds"] = time.perf_counter() - started
    return found


def run_all(at: Setting, seconds: float, on_section: Callable[[Row], None]) -> Row:
    """Run all sections within the time.

    Args:
        at: the setting.
        seconds: time for all, from now.
        on_section: called with the document after each section.
    """
    deadline = time.perf_counter() + seconds - min(RESERVE_S, 0.1 * seconds)
    document = {**provenance(at), "sections": {}}
    shares = {name: share for name, (share, _) in SECTIONS.items()}
    for name, (share, section) in SECTIONS.items():
        left = max(0.0, deadline - time.perf_counter())
        print(f"{name}: {left:.0f} s left", file=sys.stderr, flush=True)
        document["sections"][name] = run_section(section, at, left * share / sum(shares.values()))
        del shares[name]
        free(at)
        document["ok"] = not any(map(failed, document["sections"].values()))
        on_section(document)
    return document


def failed(section: Row) -> bool:
    """Whether a section has an error, or a check that failed."""
    return "error" in section or any(row.get("ok") is False for row in section["rows"])


def provenance(at: Setting) -> Row:
    """Versions, device and commit."""
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None
    return {
        "device": device_name(at.device),
        "cuda": torch.version.cuda if at.is_cuda else None,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "commit": commit,
        "small": at.sizes is SMALL,
    }


def said_by(error: BaseException) -> str:
    """An error's kind and message on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]


def rounded(value: Any) -> Any:
    """Numbers with four significant digits, inside lists and mappings too."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list) else value


def tables(document: Row) -> str:
    """The document as the docs' tables, one for each section."""
    what = ", ".join(f"{key} {document[key]}" for key in ("torch", "timm", "cuda", "commit"))
    lines = [f"{document['device']}: {what}.", ""]
    for name, section in document["sections"].items():
        lines += [f"## {name}", ""]
        columns = list(dict.fromkeys(key for row in section["rows"] for key in row))
        if columns:
            lines += [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
        for row in section["rows"]:
            cells = (shown(row.get(column)) for column in columns)
            lines.append(f"| {' | '.join(cells)} |")
        for key in ("stopped", "error"):
            if key in section:
                lines += ["", f"{key.capitalize()}: {section[key]}"]
        lines.append("")
    return "\n".join(lines)


def shown(value: Any) -> str:
    """A cell of a table."""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, dict):
        value = ", ".join(f"{key} {part}" for key, part in value.items())
    return "" if value is None else str(value).replace("|", "\\|")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default=None)
    parser.add_argument("--small", action="store_true", help="sizes for a CPU")
    parser.add_argument("--seconds", type=float, default=480.0, help="time for all sections")
    parser.add_argument("--out", type=Path, help="folder for gpu_check.json and gpu_check.md")
    asked = parser.parse_args(arguments)
    device = asked.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cpu" and not asked.small:
        parser.error("torch finds no GPU; --small runs every section on a CPU")
    at = Setting(device, SMALL if asked.small else FULL)

    def keep(document: Row) -> None:
        if asked.out is not None:
            asked.out.mkdir(parents=True, exist_ok=True)
            text = json.dumps(rounded(document), indent=1)
            (asked.out / "gpu_check.json").write_text(text + "\n", encoding="utf-8")
            (asked.out / "gpu_check.md").write_text(tables(rounded(document)), encoding="utf-8")

    # Generating code for a CPU takes minutes, and shows nothing of a GPU.
    backend = {"backend": "eager"} if device == "cpu" else {}
    # Tiny sizes gain nothing from more threads, which on a busy machine wait for each other.
    threads = 1 if asked.small else torch.get_num_threads()
    with (
        patch.object(torch, "compile", partial(torch.compile, **backend)),
        torch_threads(threads),
    ):
        document = rounded(run_all(at, asked.seconds, keep))
    print(json.dumps(document))
    print()
    print(tables(document))
    return 0 if document["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
