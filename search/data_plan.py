"""The data of a command, chosen by its options and checked whole before anything runs."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from sharedattn.backbones import describe
from sharedattn.backbones.pixels import pixels_by_tag, tagged_pixels
from sharedattn.data import EMBEDDED, DataConfig, DataSource, open_data, reopen_data
from sharedattn.data.folders.decode import shown
from sharedattn.data.pixels import PixelChanges
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec
from sharedattn.recipe import Recipe
from sharedattn.results.artifacts.atomic import atomic_write
from sharedattn.tasks import head_kind
from sharedattn.weights.pretrained import CONFIG_NAME, TIMM
from sharedattn.yaml_text import read_yaml

PIXEL_OPTIONS = "--pixels TAG, or --mean, --std, --interpolation, --crop-pct and --crop-mode"
MAX_CLASSES_FILE_BYTES = 2**24
DEFAULT_DATA = "digit-count"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """Options for data on disk, beyond its name.

    Attributes:
        test_split: share of the training split to use as the test split if the data has none; 0
            for no test split; defaults to the validation share.
        classes: file with the names of a folder's classes, one per line, in index order.
        on_bad_image: fail on unusable files, or skip them.
        scan: auto decodes every image of up to 100,000; full decodes every image.
        tag: timm weight tag, or full name with a tag, whose pixel settings are used.
        pixels: pixel settings that override the model's.
    """

    test_split: float | None = None
    classes: Path | None = None
    on_bad_image: Literal["fail", "skip"] = "fail"
    scan: Literal["auto", "full"] = "auto"
    tag: str | None = None
    pixels: PixelChanges = field(default_factory=PixelChanges)

    def given(self) -> list[str]:
        """The options not at their defaults, by their command-line names."""
        own = {
            "--test-split": self.test_split is not None,
            "--classes": self.classes is not None,
            "--on-bad-image": self.on_bad_image != "fail",
            "--scan": self.scan != "auto",
            "--pixels": self.tag is not None,
        }
        changes = {f"--{name.replace('_', '-')}": True for name in self.pixels.given()}
        return [name for name, is_given in {**own, **changes}.items() if is_given]


Look = Callable[[DataConfig, DataOptions], DataConfig]
"""Scans the files of data, with the arguments and result of `look_at`."""


def data_for(
    backbone: BackboneSpec,
    name: str,
    root: str | None,
    val_fraction: float | None = None,
    options: DataOptions | None = None,
    *,
    weights: str | None = None,
    recipe: Recipe | None = None,
) -> DataConfig:
    """Data by name, with the image size, channels and pixel settings that a backbone requires.

    Args:
        backbone: the backbone, with its timm weight tag if it has one.
        name: of embedded data, a folder, or a name known to timm.
        root: folder of a named data set.
        val_fraction: share of the training split used for validation; defaults to a tenth.
        options: further options, or None.
        weights: weights that the network starts from, see `load_pretrained`, or None for scratch.
        recipe: the recipe, which may set pixel settings, or None.

    Returns:
        The config, with the absolute path of a folder or root.

    Raises:
        InputError: options do not apply or are invalid, or the pixel settings are unknown.
    """
    options = options or DataOptions()
    if name in EMBEDDED:
        if options.given():
            raise InputError(
                f"{options.given()[0]} is of data on disk, and {name} is embedded; leave it out, "
                f"or name other data by --data"
            )
        pixels = PixelChanges()
    else:
        pixels = _pixels(backbone, weights, options, recipe)
    if root is not None and _is_folder(name):
        raise InputError(
            f"`--data-root` is where a named data set lies, but {name} is a folder itself; leave "
            f"it out"
        )
    config = DataConfig(
        name=absolute(name),
        root=None if root is None else os.path.abspath(root),
        image_size=describe(backbone).image_size,
        in_chans=backbone.in_chans,
        test_fraction=options.test_split,
        classes=None if options.classes is None else _classes(options.classes),
        pixels=pixels,
        task=head_kind(backbone.head).task,
    )
    return config if val_fraction is None else replace(config, val_fraction=val_fraction)


def default_data(backbone: BackboneSpec) -> str:
    """Name of the data for a backbone where none is named: embedded data of as many classes.

    Args:
        backbone: as declared; `DEFAULT_DATA` serves it if its number of classes is no data's.
    """
    task = head_kind(backbone.head).task
    names = [name for name, own in EMBEDDED.items() if own == task]
    by_classes = {open_data(DataConfig(name=name, task=task)).num_classes: name for name in names}
    return by_classes.get(backbone.num_classes, DEFAULT_DATA)


def look_at(
    config: DataConfig,
    options: DataOptions,
    memory: Path | None,
    *,
    remember: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> DataConfig:
    """Scan every file of a folder once, before anything depends on it.

    Args:
        config: the data.
        options: whether to skip unusable files, and how thoroughly to scan.
        memory: folder with the results of earlier scans, or None to scan every file.
        remember: whether to store this scan's results there.
        on_progress: called from time to time with the number of files scanned, and their total.

    Returns:
        The config, without the skipped files.

    Raises:
        InputError: files cannot be used, listed in a table; or the folder has another fault.
    """
    if not config.is_folder or config.reader == 1:
        return config
    # Imported here: the embedded data does not need it.
    from sharedattn.data.folders.readers import folder_reader
    from sharedattn.data.folders.scan import DECODE_ALL_UP_TO, ScanMemory, refuse_problems, scan

    reader = folder_reader(config)
    listing = reader.listing(config)
    num_files = sum(len(files.paths) for files in listing.splits.values())
    file = None
    if memory is not None:
        key = hashlib.sha256(os.fsencode(os.path.realpath(config.name))).hexdigest()
        file = memory / f"{key[:16]}.json"
    known = ScanMemory.from_json(_read_json(file))
    problems = scan(
        listing,
        whole=options.scan == "full" or num_files <= DECODE_ALL_UP_TO,
        memory=known,
        on_progress=on_progress,
    )
    problems = (*problems, *reader.label_problems(config))
    if file is not None and remember:
        # Without stored results the next scan is repeated; the folder may be read-only.
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(file, json.dumps(known.to_json()).encode())
    if options.on_bad_image == "fail":
        refuse_problems(problems)
        return config
    return replace(config, left_out=(*config.left_out, *(problem.path for problem in problems)))


def open_checked(config: DataConfig, val_fraction: float | None) -> DataSource:
    """Open current data, and refuse an option that has no effect on it.

    Args:
        config: the data.
        val_fraction: value of the option, or None if it was not given.

    Raises:
        InputError: the data is missing, or its validation split does not depend on the option.
    """
    source = reopen_data(config)
    cut_by_it = "validation" in source.cuts or (
        "test" in source.cuts and config.test_fraction is None
    )
    if val_fraction is not None and config.name not in EMBEDDED and not cut_by_it:
        raise InputError(
            f"`--val-fraction` is {val_fraction:g}, but {source.name} has a validation split; "
            f"leave it out"
        )
    return source


def for_data(backbone: BackboneSpec, source: DataSource) -> BackboneSpec:
    """The backbone with as many classes as data has, whatever number was written."""
    return replace(backbone, num_classes=source.num_classes)


def absolute(name: str) -> str:
    """The name of data, with a folder made absolute.

    Workers and later runs may have another working directory.

    Raises:
        InputError: the folder's path is not UTF-8.
    """
    if not _is_folder(name):
        return name
    if shown(name) != name:
        raise InputError(f"`--data` {shown(name)} has a name that is no UTF-8; rename the folder")
    return os.path.abspath(os.path.expanduser(name))


def _is_folder(name: str) -> bool:
    return name not in EMBEDDED and os.path.isdir(os.path.expanduser(name))


def _pixels(
    backbone: BackboneSpec,
    weights: str | None,
    options: DataOptions,
    recipe: Recipe | None,
) -> PixelChanges:
    """The pixel settings: from the options, from the recipe, or from the weights."""
    asked = (recipe.pixels if recipe is not None else PixelChanges()).given()
    if options.tag is not None:
        asked |= _of_tag(backbone, options.tag).given()
    asked |= options.pixels.given()
    return PixelChanges(**{**_of_weights(backbone, weights, asked).given(), **asked})


def _of_tag(backbone: BackboneSpec, tag: str) -> PixelChanges:
    """The pixel settings of a timm weight tag.

    Raises:
        InputError: timm has no weights with that tag.
    """
    architecture = backbone.name.partition(".")[0]
    name = tag if tag.partition(".")[2] else f"{architecture}.{tag}"
    pixels = tagged_pixels(name, backbone.in_chans)
    if pixels is None:
        asked = name.partition(".")[0]
        known = ", ".join(pixels_by_tag(asked)) or "none"
        raise InputError(
            f"`--pixels` is {tag!r}, of which timm has no weights; of {asked} it has {known}"
            + ("" if asked != architecture else "; of another model write NAME.TAG")
        )
    return pixels


def _of_weights(
    backbone: BackboneSpec, weights: str | None, asked: dict[str, Any]
) -> PixelChanges:
    """The pixel settings of the network's initial weights, or of its own tag.

    Raises:
        InputError: a weights file has no settings, and they cannot be derived from timm's.
    """
    own = tagged_pixels(backbone.name, backbone.in_chans) if "." in backbone.name else None
    if weights is None:
        return own or PixelChanges()
    if weights == TIMM:
        return tagged_pixels(backbone.name, backbone.in_chans) or PixelChanges()
    if not os.path.exists(weights):  # `Path.exists` raises on a text too long for a name
        raise InputError(
            f"`--weights` is a file, an exported folder or {TIMM!r}, but there is no {weights!r}"
        )
    recorded = _recorded_pixels(Path(weights))
    if recorded is not None:
        return recorded
    if own is not None:
        return own
    by_tag = pixels_by_tag(backbone.name, backbone.in_chans)
    if not by_tag and not {"mean", "std"} <= set(asked):
        raise InputError(
            f"`--weights` {weights} does not say how its images were resized and normalised, and "
            f"{backbone.name} is a network of your own; say it by {PIXEL_OPTIONS}"
        )
    missing = [
        name
        for name in ("mean", "std", "interpolation", "crop_pct", "crop_mode")
        if name not in asked and len({getattr(pixels, name) for pixels in by_tag.values()}) > 1
    ]
    if missing:
        kinds = {
            tag: ", ".join(f"{name} {getattr(pixels, name)}" for name in missing)
            for tag, pixels in by_tag.items()
        }
        raise InputError(
            f"`--weights` {weights} does not say how its images were resized and normalised, and "
            f"timm's weights of {backbone.name} differ in {', '.join(missing)} "
            f"({'; '.join(f'{tag}: {kind}' for tag, kind in kinds.items())}); say it by "
            f"{PIXEL_OPTIONS}"
        )
    return next(iter(by_tag.values()), PixelChanges())


def _recorded_pixels(weights: Path) -> PixelChanges | None:
    """The pixel settings in an export's config, in a folder or beside a file, or None."""
    config = (weights if weights.is_dir() else weights.parent) / CONFIG_NAME
    try:
        document = read_yaml(config.read_text(encoding="utf-8"), {}, number_keys=True)
        transform = document["data"]["identity"]["transform"]
    except (OSError, InputError, UnicodeDecodeError, KeyError, TypeError):
        return None
    if not isinstance(transform, dict):
        # Of embedded data, whose images are of one kind alone.
        return None
    names = ("mean", "std", "interpolation", "crop_pct", "crop_mode")
    return PixelChanges.from_json({n: transform[n] for n in names if n in transform})


def _classes(file: Path) -> tuple[str, ...]:
    """Read class names from a file, one per line.

    Raises:
        InputError: the file cannot be read, is empty, or repeats a class.
    """
    try:
        if file.stat().st_size > MAX_CLASSES_FILE_BYTES:
            raise InputError(f"`--classes` {file} is no list of names: it is too large")
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"`--classes` {file} cannot be read: {why}") from error
    names = tuple(line.strip() for line in lines if line.strip())
    twice = [name for name, count in Counter(names).items() if count > 1]
    if not names or twice:
        what = f"names {twice[0]!r} twice" if twice else "names no class"
        raise InputError(f"`--classes` {file} {what}; write the name of each class's folder once")
    return names


def _read_json(file: Path | None) -> Any:
    try:
        return None if file is None else json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
