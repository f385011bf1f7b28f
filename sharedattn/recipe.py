"""Training recipes: frozen documents that are hashed into the identity of evaluations.

Optimisers, schedules, augmentation, mixup and EMA are timm's, under timm's names.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

from sharedattn.data.pixels import PixelChanges
from sharedattn.errors import InputError
from sharedattn.hashing import document_key
from sharedattn.yaml_text import read_document

_R = TypeVar("_R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A training recipe.

    Attributes:
        epochs: passes over the training split; the fidelity of an evaluation.
        batch_size: images per optimiser step, and per evaluation batch.
        init: `timm` for the backbone's own initialisation, or `torch` for `reset_parameters` of
            every linear and convolution layer.
        optimizer: timm's name of the optimiser (`adamw`, `muon`, `sgd`, ...).
        optimizer_options: further arguments of timm's `create_optimizer_v2`.
        lr: peak learning rate.
        weight_decay: decoupled weight decay; biases and norms are left out, as timm does.
        schedule: timm's name of the schedule (`cosine`, `constant`, ...), stepped every update.
        warmup_epochs: epochs of linear warm-up, inside the schedule.
        min_lr: learning rate at the end.
        clip_grad_norm: bound on the gradient's norm, or None for no bound.
        drop_path_rate: stochastic depth of the last layer, growing linearly with depth.
        label_smoothing: label smoothing of the cross entropy.
        diagonality_weight: weight of the less-attention diagonality term; 0 for none.
        distillation: share of the cross entropy that takes as its target the probabilities of the
            trained model that a training starts from, instead of the labels (Hinton et al. 2015,
            arXiv:1503.02531, at temperature 1); 0 for none, the only value where nothing trained
            is started from.
        ema_decay: decay of the averaged weights, which are then evaluated; or None for no average.
        amp: precision of forward passes in training on an accelerator: `none` or `bfloat16`.
        hflip: probability of a horizontal flip.
        crop_scale_min: least share of the image's area in a random crop; 1 for no random crop.
        color_jitter: strength of colour jitter.
        auto_augment: timm's policy text, such as `rand-m9-mstd0.5-inc1`, or None.
        random_erasing: probability of random erasing.
        mixup: alpha of mixup; 0 for none.
        cutmix: alpha of cutmix; 0 for none.
        rungs: epochs, ascending, after which a trial is evaluated and may be stopped.
        restarts: whether the schedule descends to each rung and starts again, rather than
            descending once.
        loader_workers: number of processes that load images, at most one per core of the trial,
            which is the default; 0 loads in the training process. Embedded data needs none.
        grad_checkpointing: whether to recompute layers in the backward pass, to save memory.
        channels_last: whether images and the weights of convolutions have their channels last in
            memory during training; on a CPU too.
        tf32: whether matrix products in float32 round their factors to TF32 in training on a GPU;
            no effect on a CPU, as for `amp`. Convolutions use TF32 there anyway, torch's default.
        fused_optimizer: whether torch's fused kernels update the parameters, on a CPU too; refused
            for optimisers that have none, such as timm's `muon`.
        compile: whether torch.compile compiles the training's network: a placement's own as a
            whole, or layer by layer with `grad_checkpointing`, and a supernet by kinds of layers;
            on a CPU too, where it needs a C++ compiler. Evaluations are not compiled.
        pixels: changes to the model's own preprocessing; part of the data's identity rather than
            the recipe's.

    Raises:
        InputError: a value out of its range.
    """

    epochs: int
    batch_size: int = 64
    init: Literal["timm", "torch"] = "timm"
    optimizer: str = "adamw"
    optimizer_options: tuple[tuple[str, Any], ...] = ()
    lr: float = 1e-3
    weight_decay: float = 0.05
    schedule: str = "cosine"
    warmup_epochs: float = 0.0
    min_lr: float = 1e-5
    clip_grad_norm: float | None = None
    drop_path_rate: float = 0.0
    label_smoothing: float = 0.0
    diagonality_weight: float = 0.0
    distillation: float = 0.0
    ema_decay: float | None = None
    amp: Literal["none", "bfloat16"] = "none"
    hflip: float = 0.0
    crop_scale_min: float = 1.0
    color_jitter: float = 0.0
    auto_augment: str | None = None
    random_erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    rungs: tuple[int, ...] = ()
    restarts: bool = False
    loader_workers: int | None = None
    grad_checkpointing: bool = False
    channels_last: bool = False
    tf32: bool = False
    fused_optimizer: bool = False
    compile: bool = False
    pixels: PixelChanges = PixelChanges()

    def __post_init__(self) -> None:
        options = tuple(sorted(_plain_option(*option) for option in self.optimizer_options))
        object.__setattr__(self, "optimizer_options", options)
        for name in _RANGES:
            _check_range(name, getattr(self, name))
        for name in ("epochs", "batch_size", "loader_workers"):
            if name == "loader_workers" and self.loader_workers is None:
                continue
            if type(getattr(self, name)) is not int:
                raise InputError(
                    f"`{name}` of a recipe is a whole number, but got {getattr(self, name)!r}"
                )
        for name in ("restarts", "grad_checkpointing", *_LATER_SWITCHES):
            if type(getattr(self, name)) is not bool:
                raise InputError(
                    f"`{name}` of a recipe is true or false, but got {getattr(self, name)!r}"
                )
        if self.fused_optimizer and "fused" in dict(options):
            raise InputError(
                "`fused_optimizer` of a recipe is true, and `optimizer_options` has `fused` as "
                "well; leave it out of optimizer_options"
            )
        for name in ("optimizer", "schedule"):
            if type(getattr(self, name)) is not str:
                raise InputError(
                    f"`{name}` of a recipe is a name of timm's, but got {getattr(self, name)!r}"
                )
        for name, known in (("init", ("timm", "torch")), ("amp", ("none", "bfloat16"))):
            if getattr(self, name) not in known:
                raise InputError(
                    f"`{name}` of a recipe is one of {', '.join(known)}, "
                    f"but got {getattr(self, name)!r}"
                )
        is_list = isinstance(self.rungs, (list, tuple))
        object.__setattr__(self, "rungs", tuple(self.rungs) if is_list else (self.rungs,))
        check_rungs(self.rungs, self.epochs)
        if self.warmup_epochs > self.epochs:
            raise InputError(
                f"`warmup_epochs` of a recipe is {self.warmup_epochs:g}, more than "
                f"`epochs`={self.epochs}; lower warmup_epochs"
            )

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of every field; later ones are omitted at their defaults."""
        document = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in (*_LATER_SWITCHES, "distillation"):
            if not document[name]:
                del document[name]
        # Omitted if empty, as in recipes from before pixels could be changed.
        pixels = {"pixels": self.pixels.to_json()} if self.pixels.given() else {}
        del document["pixels"]
        return {
            **document,
            **pixels,
            "optimizer_options": dict(self.optimizer_options),
            "rungs": list(self.rungs),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Recipe:
        """Invert `to_json`; omitted fields take their defaults.

        Raises:
            InputError: an unknown field, a missing `epochs`, or a value out of its range.
        """
        known = {f.name for f in fields(cls)}
        if not isinstance(document, dict):
            raise InputError(f"a recipe is a mapping of its fields, but got {document!r}")
        if unknown := [key for key in document if key not in known]:
            raise InputError(
                f"a recipe has no field {', '.join(map(repr, unknown))}; its fields are "
                f"{', '.join(sorted(known))}"
            )
        if "epochs" not in document:
            raise InputError("a recipe needs `epochs`, which says for how long to train")
        options = document.get("optimizer_options", {})
        if not isinstance(options, dict):
            raise InputError(
                f"`optimizer_options` of a recipe is a mapping of names to values, "
                f"but got {options!r}"
            )
        return cls(
            **{
                **document,
                "optimizer_options": tuple(options.items()),
                "pixels": PixelChanges.from_json(document.get("pixels", {})),
            }
        )

    @classmethod
    def load(cls, name: str) -> Recipe:
        """Load a built-in recipe by name, or one from a YAML file.

        Raises:
            InputError: no such recipe or file, or the file holds no valid recipe.
        """
        return load_named(name, RECIPES, "`recipe`", cls.from_json)

    def with_changes(self, **changes: Any) -> Recipe:
        """The recipe with some fields replaced; warm-up shrinks with fewer epochs."""
        epochs = changes.get("epochs", self.epochs)
        _check_range("epochs", epochs)
        warmup = changes.setdefault("warmup_epochs", self.warmup_epochs * epochs / self.epochs)
        return replace(self, **{**changes, "warmup_epochs": round(warmup, 6)})

    def extended(self, epochs: int) -> Recipe:
        """The recipe for a training of other length that nobody judges on the way."""
        return self.with_changes(epochs=epochs, rungs=())

    @property
    def key(self) -> str:
        """sha256 of the canonical JSON; what does not change the result is left out."""
        return document_key({k: v for k, v in self.to_json().items() if k not in _WITHOUT_EFFECT})


def load_named(
    name: str, known: Mapping[str, _R], what: str, from_json: Callable[[Any], _R]
) -> _R:
    """Load a built-in recipe of some kind by name, or one from a YAML file.

    Args:
        name: name of the recipe or path of the file.
        known: the built-in recipes.
        what: name of the argument in messages.
        from_json: reads a recipe.

    Raises:
        InputError: no such recipe or file, or the file holds no valid recipe.
    """
    if name in known:
        return known[name]
    if not os.path.isfile(name):  # `Path.is_file` raises on a text too long for a name
        near = difflib.get_close_matches(name, known)
        raise InputError(
            f"{what} is {name!r}, but there is no such file, and no recipe but {', '.join(known)}"
            + (f"; did you mean {' or '.join(near)}?" if near else "; name one of these or a file")
        )
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{what} is a YAML file, but {name} cannot be read: {error}") from error
    return read_document(text, name, from_json)


def check_rungs(rungs: tuple[int, ...], epochs: int) -> None:
    """Check that rungs lie inside a training.

    Args:
        rungs: epochs after which a trial is evaluated and may be stopped.
        epochs: number of epochs of the whole training.

    Raises:
        InputError: rungs that are not ascending whole numbers between 0 and `epochs`.
    """
    if not all(type(rung) is int for rung in rungs) or not all(
        low < high for low, high in pairwise((0, *rungs, epochs))
    ):
        raise InputError(
            f"`rungs` is {list(rungs)}; write ascending whole numbers above 0 and below the "
            f"{epochs} epochs of the training"
        )


def _plain_option(name: Any, value: Any) -> tuple[str, Any]:
    """An optimiser's option, with a list (`betas`) as a tuple, so that recipes are hashable."""
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if not isinstance(name, str) or not all(
        v is None or isinstance(v, (bool, int, str)) or (isinstance(v, float) and math.isfinite(v))
        for v in values
    ):
        raise InputError(
            f"`optimizer_options` of a recipe is a mapping of names to plain values or lists of "
            f"them, but got {name!r}: {value!r}"
        )
    return name, values if isinstance(value, (list, tuple)) else value


def _check_range(name: str, value: object) -> None:
    """Check that a numeric field has a number in its range."""
    low, high = _RANGES[name]
    if value is None and name in _MAY_BE_NONE:
        return
    # A bool is a number to Python, and `hflip: yes` one to YAML.
    if isinstance(value, int | float) and not isinstance(value, bool):
        if low <= value <= high and value != math.inf:
            return
    raise InputError(
        f"`{name}` of a recipe is a number from {low:g} to {high:g}, but got {value!r}"
    )


_MAY_BE_NONE = frozenset({"clip_grad_norm", "ema_decay", "loader_workers"})
# Keys include them if they are on: results differ by rounding.
_LATER_SWITCHES = ("channels_last", "tf32", "fused_optimizer", "compile")
_WITHOUT_EFFECT = frozenset({"loader_workers", "grad_checkpointing", "pixels"})

_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, 100_000),
    "batch_size": (1, 1_000_000),
    "lr": (0.0, 1e3),
    "weight_decay": (0.0, 1e3),
    "warmup_epochs": (0.0, 100_000),
    "min_lr": (0.0, 1e3),
    "clip_grad_norm": (0.0, math.inf),
    "drop_path_rate": (0.0, 0.99),
    "label_smoothing": (0.0, 0.99),
    "diagonality_weight": (0.0, 1e6),
    "distillation": (0.0, 1.0),
    "ema_decay": (0.0, 1.0),
    "hflip": (0.0, 1.0),
    "crop_scale_min": (0.01, 1.0),
    "color_jitter": (0.0, 10.0),
    "random_erasing": (0.0, 1.0),
    "mixup": (0.0, 100.0),
    "cutmix": (0.0, 100.0),
    "loader_workers": (0, 1024),
}

# Muon, since it needs fewer steps than AdamW on the embedded task, and a search trains many
# placements on it.
RECIPES: dict[str, Recipe] = {
    "digit-pairs": Recipe(
        epochs=4,
        batch_size=128,
        init="torch",
        optimizer="muon",
        optimizer_options=(("nesterov", True),),
        lr=2e-2,
        warmup_epochs=0.8,
    ),
    # The recipe of DeiT (Touvron et al. 2021, arXiv 2012.12877, Table 9) without repeated
    # augmentation; the learning rate is for the given batch size.
    "deit": Recipe(
        epochs=300,
        batch_size=256,
        lr=2.5e-4,
        warmup_epochs=5.0,
        drop_path_rate=0.1,
        label_smoothing=0.1,
        amp="bfloat16",
        hflip=0.5,
        crop_scale_min=0.08,
        color_jitter=0.4,
        auto_augment="rand-m9-mstd0.5-inc1",
        random_erasing=0.25,
        mixup=0.8,
        cutmix=1.0,
    ),
}

# Longer than that of digit-pairs: trials of this length rank placements as trainings of 64 epochs
# do with a Kendall's tau of 0.66 (docs/measurements/yardstick.md).
RECIPES["digit-count"] = replace(RECIPES["digit-pairs"], epochs=16, warmup_epochs=0.5)

# For at most some thousands of small images: fewer epochs and milder augmentation than DeiT's.
RECIPES["small"] = replace(
    RECIPES["digit-pairs"], epochs=24, batch_size=100, warmup_epochs=1.0, crop_scale_min=0.8
)

# For at most some thousands of small images with masks or boxes, chosen on digits on clutter
# (benchmarks/task_training.py).
RECIPES["small-segment"] = replace(
    RECIPES["digit-pairs"], epochs=8, batch_size=32, warmup_epochs=0.5
)

# Muon's rate, by which those above learn fast, makes anchors' losses diverge.
RECIPES["small-detect"] = replace(
    RECIPES["small-segment"],
    epochs=10,
    batch_size=16,
    optimizer="adamw",
    optimizer_options=(),
    lr=1e-3,
    clip_grad_norm=1.0,
)

# Averaged weights draw better than the last ones, and noise is drawn anew for each image, so that
# nothing needs to be held back (benchmarks/denoising.py).
RECIPES["small-denoise"] = Recipe(
    epochs=100,
    batch_size=32,
    lr=2e-3,
    weight_decay=0.0,
    warmup_epochs=1.0,
    clip_grad_norm=1.0,
    ema_decay=0.99,
)

# Our recipes from trained weights: fewer epochs at lower rates. The embedded supernet is trained
# so briefly that its members keep learning at the full rate.
RECIPES |= {
    "digit-pairs-from-supernet": replace(RECIPES["digit-pairs"], epochs=6, warmup_epochs=0.3),
    "digit-pairs-fine-tuning": replace(
        RECIPES["digit-pairs"], epochs=6, lr=1e-2, warmup_epochs=0.5
    ),
    "digit-count-from-supernet": replace(RECIPES["digit-count"], epochs=16, warmup_epochs=0.3),
    "digit-count-fine-tuning": replace(RECIPES["digit-count"], epochs=16, lr=1e-2),
    "small-from-supernet": replace(RECIPES["small"], epochs=12, warmup_epochs=0.5),
    "small-fine-tuning": replace(RECIPES["small"], epochs=36, warmup_epochs=0.5, distillation=0.5),
    "deit-fine-tuning": replace(RECIPES["deit"], epochs=30, lr=2.5e-5, warmup_epochs=1.0),
}
RECIPES |= {
    "small-segment-from-supernet": replace(RECIPES["small-segment"], epochs=4),
    "small-segment-fine-tuning": RECIPES["small-segment"],
    "small-detect-from-supernet": replace(RECIPES["small-detect"], epochs=5),
    "small-detect-fine-tuning": replace(RECIPES["small-detect"], lr=5e-4),
    "small-denoise-fine-tuning": replace(RECIPES["small-denoise"], epochs=50, lr=5e-4),
}
RECIPES["deit-from-supernet"] = RECIPES["deit-fine-tuning"]
