"""Load the entry points of plug-ins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from sharedattn.errors import InputError

GROUPS = (
    "sharedattn.mechanisms",
    "sharedattn.backbones",
    "sharedattn.searchers",
    "sharedattn.evaluators",
)


@dataclass(frozen=True, slots=True, order=True)
class Plugin:
    """A distribution that extends the package.

    Attributes:
        name: name of the distribution.
        version: version of the distribution.
    """

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def load(group: str) -> Iterator[tuple[Plugin, Any]]:
    """Load the entry points of a group, sorted by distribution and name.

    Raises:
        InputError: an entry point cannot be loaded.
    """
    for plugin, _, loaded in load_named(group):
        yield plugin, loaded


def load_named(group: str) -> Iterator[tuple[Plugin, str, Any]]:
    """`load`, with the names of the entry points."""
    for plugin, point in _points(group):
        try:
            loaded = point.load()
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise InputError(
                f"the plug-in {plugin} cannot be imported: its entry point {point.name} = "
                f"{point.value} of {group} raised {why}; mend it, or uninstall {plugin.name}"
            ) from error
        yield plugin, point.name, loaded


def added(
    group: str,
    taken: Iterable[str],
    *,
    what: str,
    wanted: str,
    fits: Callable[[Any], bool],
    names_of: Callable[[str, Any], Sequence[str]],
) -> list[tuple[str, Any]]:
    """The named entries that plug-ins add to a built-in list.

    Args:
        group: group of the entry points.
        taken: names of the built-in entries.
        what: kind of an entry, for messages, such as "a searcher".
        wanted: what an entry point must name, for messages.
        fits: whether an object is a valid entry.
        names_of: the names that an entry takes, its own first, from the entry point's name and
            the object.

    Returns:
        The first name of each entry, and the object.

    Raises:
        InputError: a plug-in cannot be imported, names something else, or takes a name that
            is in use.
    """
    names, found = set(taken), []
    for plugin, point, loaded in load_named(group):
        if not fits(loaded):
            raise InputError(
                f"the plug-in {plugin} registers {loaded!r} as {what}; its entry point names "
                f"{wanted}"
            )
        own = names_of(point, loaded)
        for name in own:
            if name in names:
                raise InputError(
                    f"the plug-in {plugin} takes the name {name}, which another "
                    f"{what.partition(' ')[2]} has; give it another, or uninstall {plugin.name}"
                )
        names.update(own)
        found.append((own[0], loaded))
    return found


def installed() -> tuple[Plugin, ...]:
    """Every distribution with an entry point of this package's groups, without loading any."""
    return tuple(sorted({plugin for group in GROUPS for plugin, _ in _points(group)}))


def _points(group: str) -> list[tuple[Plugin, Any]]:
    found = [
        (
            Plugin(
                point.dist.name if point.dist else "unknown",
                point.dist.version if point.dist else "unknown",
            ),
            point,
        )
        for point in entry_points(group=group)
    ]
    return sorted(found, key=lambda pair: (pair[0], pair[1].name))
