"""Spaces: what may be chosen, declared in YAML, exact over distinct placements.

The format is described with examples in docs/reference/spaces.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast

from sharedattn.backbones import canonical, describe
from sharedattn.errors import InputError
from sharedattn.mechanisms.registry import registry
from sharedattn.objectives import StageRule
from sharedattn.placement import BackboneSpec, Envelope, Placement
from sharedattn.spaces.automaton import Automaton, build
from sharedattn.spaces.constraints import Constraint, Count, read_constraint
from sharedattn.spaces.document import Section, read_list, read_one_of, read_text
from sharedattn.spaces.ruled import Ruled
from sharedattn.spaces.stages import HandOver, Stage, StageLanguage, read_stage
from sharedattn.spaces.stages.parts import listed
from sharedattn.yaml_text import DocumentError, DocumentPath, located, read_document

Order = Literal["EVLN", "any"]
"""By the ranks of kinds, or any. The name of the former is part of documents and their keys."""

_KEYS = ("name", "backbone", "order", "stages", "constraints")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, kw_only=True)
class Space:
    """A set of placements on one backbone, by the choices of each stage and by constraints.

    Attributes:
        name: names the space in studies and reports.
        backbone: the network whose layers are chosen.
        stages: the choices of each stage, the forms of layers canonical on the backbone.
        order: whether layers that are given by counts stand in the order of their kinds' ranks
            (E, V, L, N; `EVLN` whatever else is registered) or in any.
        constraints: rules between layers.

    Raises:
        InputError: a name that could not be part of a file's name, or stages that do not fit the
            backbone.
    """

    name: str
    backbone: BackboneSpec
    stages: tuple[Stage, ...]
    order: Order = "EVLN"
    constraints: tuple[Constraint, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InputError(
                f"`name` is {self.name!r}; the name of a space is letters, digits, dots, dashes, "
                f"underscores"
            )
        with located(("backbone",)):
            shapes = describe(self.backbone).stages
        if len(self.stages) != len(shapes):
            raise DocumentError(
                ("stages",),
                f"a space has the stages of its backbone, but got {len(self.stages)} and "
                f"{self.backbone} has {len(shapes)}",
            )
        stages = tuple(
            stage.on(shape, self.backbone.options, ("stages", i))
            for i, (stage, shape) in enumerate(zip(self.stages, shapes, strict=True))
        )
        object.__setattr__(self, "stages", stages)

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: what follows from them is made again, and cannot be pickled."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def load(cls, name_or_path: str | Path) -> Space:
        """A preset by its name, or a space from a YAML file.

        Raises:
            InputError: neither a preset nor a readable file, or a document that breaks a rule;
                the message has the line.
        """
        if str(name_or_path) in presets():
            source = f"preset {name_or_path}"
            text = _preset_folder().joinpath(f"{name_or_path}.yaml").read_text(encoding="utf-8")
        else:
            source = str(name_or_path)
            try:
                text = Path(name_or_path).read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                raise InputError(
                    f"{source!r} is neither a preset nor a YAML file that can be read ({error}); "
                    f"presets: {', '.join(presets())}"
                ) from error
        return cls.from_yaml(text, source)

    @classmethod
    def from_yaml(cls, text: str, source: str) -> Space:
        """A space from the text of a YAML document.

        Args:
            text: the document.
            source: names the document in messages.

        Raises:
            InputError: a document that breaks a rule; the message has source and line.
        """
        return read_document(text, source, cls.from_document)

    @classmethod
    def from_document(cls, document: Any) -> Space:
        """A space from plain dictionaries and lists, as YAML gives them.

        Raises:
            DocumentError: a key or value that means nothing, or stages that do not fit the
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
            InputError: the space has no member; the message names the constraints at fault.
        """
        automaton = self._automaton(self.constraints)
        if not automaton.size:
            raise InputError(self._without_members())
        return automaton

    @property
    def is_ordered(self) -> bool:
        """Whether layers that are given by counts stand in the order of their kinds' ranks."""
        return self.order == "EVLN"

    def automaton_within(self, rules: Sequence[Sequence[StageRule]]) -> Automaton:
        """The members that also keep some rules, as a minimal automaton; perhaps without any.

        Args:
            rules: of each stage.
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
        """The legal members of each stage, each stage by itself."""
        return [
            HandOver(stage.language(self.is_ordered), shape.attention)
            for stage, shape in zip(self.stages, describe(self.backbone).stages, strict=True)
        ]

    @property
    def _asked_by_options(self) -> tuple[Constraint, ...]:
        """Rules of every placement under the backbone's options."""
        if not self.backbone.options.attention_residual:
            return ()
        return (Count(kinds=frozenset(_residual_kinds()), least=1, per="stage"),)

    def _without_members(self) -> str:
        """Names constraints that together exclude every member and of which none can be left out.

        Deletion filter: drop each constraint in turn, and keep it where that gives members.
        """
        at_fault = self.constraints
        for constraint in self.constraints:
            others = tuple(c for c in at_fault if c is not constraint)
            if not self._automaton(others).size:
                at_fault = others
        if at_fault:
            return (
                f"no placement is left in {self.name}: {' and '.join(map(str, at_fault))} "
                f"exclude{'s' if len(at_fault) == 1 else ''} every one"
            )
        empty = [
            str(i + 1)
            for i, language in enumerate(self._languages)
            if not build([language], self._asked_by_options).size
        ]
        return (
            f"no placement is left in stage {', '.join(empty)} of {self.name}: its counts never "
            f"add up to an allowed depth, its options fit no depth, a layer has nothing to take "
            f"from a layer of equal shift before it, or attention_residual=true asks for a layer "
            f"of kind {listed(_residual_kinds())}"
        )

    def __contains__(self, placement: Placement) -> bool:
        """Whether `placement` is a member."""
        path = self.automaton.path(placement)
        return path is not None and self.automaton.accepts(path)

    def envelope(self) -> Envelope:
        """The smallest envelope that holds every member."""
        return Envelope.of(*map(self.automaton.placement, self.automaton.cover()))


def presets() -> tuple[str, ...]:
    """Names of the spaces that come with the package, sorted."""
    names = (entry.name for entry in _preset_folder().iterdir())
    return tuple(sorted(name[: -len(".yaml")] for name in names if name.endswith(".yaml")))


def _residual_kinds() -> list[str]:
    """The kinds of which a stage has a layer under `attention_residual`."""
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
        raise DocumentError(path, f"this is a list with one entry a stage, but got {value!r}")
    return tuple(read_stage(stage, (*path, i)) for i, stage in enumerate(value))


def _read_constraints(value: Any, path: DocumentPath) -> tuple[Constraint, ...]:
    return read_list(read_constraint)(value, path) if value != [] else ()
