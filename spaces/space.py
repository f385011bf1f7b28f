"""Search spaces: declared in YAML, exact over distinct placements.

docs/reference/spaces.md describes the format with examples.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast

from sharedattn.backbones import canonical, describe
from sharedattn.errors import InputError
from sharedattn.image_size import ImageSize
from sharedattn.mechanisms.registry import registry
from sharedattn.objectives import StageRule
from sharedattn.placement import BackboneSpec, Envelope, Placement
from sharedattn.spaces.automaton import Automaton, build
from sharedattn.spaces.constraints import Constraint, Count, read_constraint
from sharedattn.spaces.document import Section, read_list, read_one_of, read_text
from sharedattn.spaces.ruled import Ruled
from sharedattn.spaces.stages import (
    HandOver,
    Stage,
    StageLanguage,
    read_stage,
    without_trailing,
)
from sharedattn.spaces.stages.parts import listed
from sharedattn.yaml_text import DocumentError, DocumentPath, located, read_document

Order = Literal["EVLN", "any"]
"""By the ranks of kinds, or any. The name `EVLN` is part of documents and database keys."""

_KEYS = ("name", "backbone", "order", "stages", "constraints")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, kw_only=True)
class Space:
    """A set of placements on one backbone, given by choices per stage and by constraints.

    Attributes:
        name: name of the space in studies and reports.
        backbone: the network whose layers are chosen.
        stages: the choices of each stage; forms of layers are canonical on the backbone.
        order: whether layers given by counts stand in the order of their kinds' ranks (E, V, L,
            N, X; named `EVLN` whatever else is registered) or in any order.
        constraints: rules between layers.

    Raises:
        InputError: `name` cannot be part of a file name, or the stages do not fit the backbone.
    """

    name: str
    backbone: BackboneSpec
    stages: tuple[Stage, ...]
    order: Order = "EVLN"
    constraints: tuple[Constraint, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InputError(
                f"`name` is {self.name!r}; use only letters, digits, dots, dashes and underscores"
            )
        with located(("backbone",)):
            shapes = describe(self.backbone).stages
        if len(self.stages) != len(shapes):
            raise DocumentError(
                ("stages",),
                f"`stages` has {len(self.stages)} entries, but {self.backbone} has {len(shapes)} "
                f"stages; give one entry per stage",
            )
        stages = tuple(
            stage.on(shape, self.backbone.options, ("stages", i))
            for i, (stage, shape) in enumerate(zip(self.stages, shapes, strict=True))
        )
        object.__setattr__(self, "stages", stages)

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: cached properties are recomputed, and cannot be pickled."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def load(cls, name_or_path: str | Path, *, task: str | None = None) -> Space:
        """Load a preset by its name, or a space from a YAML file.

        Args:
            name_or_path: a preset's name, also with an image size as in `pvt-tiny@64x96`, or a
                file.
            task: as of `for_task`; by default the space's own.

        Raises:
            InputError: neither a preset nor a readable file, an invalid document (the message
                gives the line), or as of `for_task`.
        """
        if task is not None:
            return cls.load(name_or_path).for_task(task)
        preset, at, size = str(name_or_path).partition("@")
        if preset in presets():
            source = f"preset {preset}"
            text = _preset_folder().joinpath(f"{preset}.yaml").read_text(encoding="utf-8")
            space = cls.from_yaml(text, source)
            if not at:
                return space
            backbone = replace(space.backbone, image_size=ImageSize.parse(size))
            return replace(space, backbone=canonical(backbone))
        source = str(name_or_path)
        try:
            text = Path(name_or_path).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            near = difflib.get_close_matches(source, presets())
            raise InputError(
                f"{source!r} is neither a preset nor a YAML file that can be read ({error}); "
                f"presets: {', '.join(presets())}"
                + (f"; did you mean {' or '.join(near)}?" if near else "")
            ) from error
        return cls.from_yaml(text, source)

    def for_task(self, task: str) -> Space:
        """The space of networks for a task, with its default head unless they have one for it.

        Args:
            task: one of `sharedattn.tasks.TASKS`.

        Raises:
            InputError: the backbone names a head of another task, or cannot have one of this.
        """
        backbone = BackboneSpec.parse(str(self.backbone), task=task)
        return replace(self, backbone=canonical(backbone))

    @classmethod
    def from_yaml(cls, text: str, source: str) -> Space:
        """Read a space from the text of a YAML document.

        Args:
            text: the document.
            source: name of the document in messages.

        Raises:
            InputError: the document is invalid; the message gives source and line.
        """
        return read_document(text, source, cls.from_document)

    @classmethod
    def from_document(cls, document: Any) -> Space:
        """Read a space from plain dictionaries and lists, as YAML gives them.

        Raises:
            DocumentError: an unknown key, an invalid value, or stages that do not fit the
                backbone.
        """
        section = Section(document, (), _KEYS)
        order = section.take("order", read_one_of("EVLN", "any"), "EVLN")
        with located(()):
            return cls(
                name=section.take("name", read_text),
                backbone=section.take("backbone", _read_backbone),
                stages=section.take("stages", _read_stages),
                order=cast(Order, order),
                constraints=section.take("constraints", _read_constraints, []),
            )

    def to_document(self) -> dict[str, Any]:
        """Plain dictionaries and lists; equal spaces give equal documents."""
        return {
            "name": self.name,
            "backbone": self.backbone.to_json(),
            "order": self.order,
            "stages": [stage.to_document() for stage in self.stages],
            "constraints": [constraint.to_document() for constraint in self.constraints],
        }

    @cached_property
    def automaton(self) -> Automaton:
        """The members as a minimal automaton.

        Raises:
            InputError: the space has no member; the message names the contradictory constraints.
        """
        automaton = self._automaton(self.constraints)
        if not automaton.size:
            raise InputError(self._without_members())
        return automaton

    @property
    def is_ordered(self) -> bool:
        """Whether layers given by counts stand in the order of their kinds' ranks."""
        return self.order == "EVLN"

    def automaton_within(self, rules: Sequence[Sequence[StageRule]]) -> Automaton:
        """The members that also satisfy `rules`, as a minimal automaton, possibly empty.

        Args:
            rules: the rules of each stage.
        """
        languages = []
        for language, of_stage in zip(self._languages, rules, strict=True):
            for rule in of_stage:
                language = Ruled(language, rule)
            languages.append(language)
        return build(languages, (*self._asked_by_options, *self.constraints))

    def _automaton(self, constraints: tuple[Constraint, ...]) -> Automaton:
        return build(self._languages, (*self._asked_by_options, *constraints))

    @cached_property
    def _languages(self) -> list[StageLanguage]:
        """The legal members of each stage by itself."""
        return [
            HandOver(without_trailing(stage.language(self.is_ordered)), shape)
            for stage, shape in zip(self.stages, describe(self.backbone).stages, strict=True)
        ]

    @property
    def _asked_by_options(self) -> tuple[Constraint, ...]:
        """The rules that the backbone's options impose on every placement."""
        if not self.backbone.options.attention_residual:
            return ()
        return (Count(kinds=frozenset(_residual_kinds()), least=1, per="stage"),)

    def _without_members(self) -> str:
        """The error message, with a minimal set of constraints that exclude every member.

        Deletion filter: drop each constraint in turn, and keep it if members appear.
        """
        at_fault = self.constraints
        for constraint in self.constraints:
            others = tuple(c for c in at_fault if c is not constraint)
            if not self._automaton(others).size:
                at_fault = others
        if at_fault:
            return (
                f"{self.name} has no placement: {' and '.join(map(str, at_fault))} "
                f"exclude{'s' if len(at_fault) == 1 else ''} every one"
            )
        empty = [
            str(i + 1)
            for i, language in enumerate(self._languages)
            if not build([language], self._asked_by_options).size
        ]
        return (
            f"{self.name} has no placement in stage {', '.join(empty)}: every layer is left out, "
            f"no option fits a depth, a layer reuses what no earlier layer of equal shift "
            f"computed, or attention_residual=true needs a layer of kind "
            f"{listed(_residual_kinds())}"
        )

    def __contains__(self, placement: Placement) -> bool:
        """Whether `placement` is a member."""
        path = self.automaton.path(placement)
        return path is not None and self.automaton.accepts(path)

    def envelope(self) -> Envelope:
        """The smallest envelope that contains every member."""
        return Envelope.of(*map(self.automaton.placement, self.automaton.cover()))


def presets() -> tuple[str, ...]:
    """Names of the bundled spaces, sorted."""
    names = (entry.name for entry in _preset_folder().iterdir())
    return tuple(sorted(name[: -len(".yaml")] for name in names if name.endswith(".yaml")))


def _residual_kinds() -> list[str]:
    """The kinds of which `attention_residual` requires a layer in each stage."""
    return [branch.letter for branch in registry().by_rank if branch.adds_residual]


def _preset_folder() -> Any:
    return resources.files("sharedattn.spaces.presets")


def _read_backbone(value: Any, path: DocumentPath) -> BackboneSpec:
    with located(path):
        if isinstance(value, dict):
            return canonical(BackboneSpec.from_json(value))
        return canonical(BackboneSpec.parse(read_text(value, path)))


def _read_stages(value: Any, path: DocumentPath) -> tuple[Stage, ...]:
    if not isinstance(value, list) or not value:
        raise DocumentError(path, f"expected a list with one entry per stage, but got {value!r}")
    return tuple(read_stage(stage, (*path, i)) for i, stage in enumerate(value))


def _read_constraints(value: Any, path: DocumentPath) -> tuple[Constraint, ...]:
    return read_list(read_constraint)(value, path) if value != [] else ()
