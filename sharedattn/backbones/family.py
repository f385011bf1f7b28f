"""What a backbone family tells the registry: its timm class, and how to read and run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sharedattn.network import Network
from sharedattn.placement import Keyword
from sharedattn.shape import BackboneShape


@dataclass(frozen=True, slots=True)
class KeywordRule:
    """One keyword argument of a family's timm class.

    Attributes:
        read: the keyword's value as a built model shows it; its type is the keyword's type.
        may_be_zero: whether 0 means something; a number below 0 never does.
    """

    read: Callable[[Any], Keyword]
    may_be_zero: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family of timm models that are all built and run in one way.

    Attributes:
        base_name: the name that stands for `model_class` with its own defaults.
        model_class: timm's class; a model of a subclass is not understood.
        keywords: the keyword arguments whose meaning is implemented, beside image size, channels
            and classes.
        describe: sizes of a built model; raises `InputError`, without the model's name, on one
            whose parts are not understood.
        make_network: the family's `Network` class: it takes a built model, the backbone's spec,
            the envelope, the shape, `fused` and `drop_path_rate`, and takes the model's parts
            over.
    """

    base_name: str
    model_class: type[Any]
    keywords: Mapping[str, KeywordRule]
    describe: Callable[[Any], BackboneShape]
    make_network: Callable[..., Network]

    def read_keywords(self, model: Any) -> dict[str, Keyword]:
        """The value of every keyword as a built model shows it."""
        return {key: rule.read(model) for key, rule in self.keywords.items()}
