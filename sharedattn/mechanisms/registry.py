"""The registry of mechanisms, built in and from plug-ins.

A plug-in adds mechanisms by an entry point of the group `sharedattn.mechanisms`, whose object is a
`Branch`, a `Gate`, or a list of them. Entry points are read when a mechanism is first looked up,
in every process, including workers and nodes. Mechanisms that are installed but not used change
nothing: mechanisms are ordered by `rank`, and spaces, keys and draws depend only on those that
they use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import ParamSpec, TypeVar

from sharedattn.errors import InputError
from sharedattn.mechanisms.absent import ABSENT
from sharedattn.mechanisms.cbam import CBAM_GATE
from sharedattn.mechanisms.dia import DIA_GATE
from sharedattn.mechanisms.eca import ECA_GATE
from sharedattn.mechanisms.external import EXTERNAL
from sharedattn.mechanisms.global_context import GC_GATE
from sharedattn.mechanisms.interface import Branch, Channel, Gate
from sharedattn.mechanisms.less import LESS
from sharedattn.mechanisms.nothing import NOTHING
from sharedattn.mechanisms.se import SE_GATE
from sharedattn.mechanisms.sge import SGE_GATE
from sharedattn.mechanisms.srm import SRM_GATE
from sharedattn.mechanisms.vanilla import VANILLA
from sharedattn.plugins import Plugin, load

P = ParamSpec("P")
T = TypeVar("T")

_ALWAYS_LISTED: tuple[Branch | Gate, ...] = (VANILLA, LESS, EXTERNAL, NOTHING, DIA_GATE)
OURS: tuple[Branch | Gate, ...] = (
    *_ALWAYS_LISTED,
    ABSENT,
    SE_GATE,
    ECA_GATE,
    CBAM_GATE,
    GC_GATE,
    SRM_GATE,
    SGE_GATE,
)

_RESERVED_CODES = frozenset({"cb", "cbs"})
_RESERVED_LETTERS = frozenset("WA")
_RESERVED_NAMES = frozenset({"kind", "options", "gate", "cb"})
# Entries of the table of costs, and names in a block or network other than mechanisms'.
_RESERVED_PARTS = frozenset({"broadcasting", "rest", "attn", "mlp", "stage", "grid"})
_RESERVED_KEYS = frozenset({"counts", "layers", "depth", "cb"})
_LETTER = re.compile(r"[A-Z]")
_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True, slots=True)
class Registry:
    """The registered mechanisms.

    Attributes:
        branches: by letter, the built-in ones first, then by distribution and entry point.
        gates: by name, in the same order.
        plugins: the distribution of each plug-in's part, by `branch LETTER` or `gate NAME`.
        channels: the channels that branches write, by name.
    """

    branches: dict[str, Branch]
    gates: dict[str, Gate]
    plugins: dict[str, Plugin]
    channels: dict[str, Channel]

    @property
    def by_rank(self) -> tuple[Branch, ...]:
        """Branches in the order in which a stage's counts expand."""
        return tuple(sorted(self.branches.values(), key=lambda branch: branch.rank))

    @property
    def gates_by_rank(self) -> tuple[Gate, ...]:
        """Gates in the order in which they are listed."""
        return tuple(sorted(self.gates.values(), key=lambda gate: gate.rank))


_registry: Registry | None = None


def registry() -> Registry:
    """Every mechanism; the same object until the process ends.

    Raises:
        InputError: a plug-in cannot be imported, or registers something that is taken.
    """
    # A global, since compilers of networks cannot trace through `functools.cache`.
    global _registry
    if _registry is None:
        _registry = _read()
    return _registry


def _read() -> Registry:
    found = Registry({}, {}, {}, {})
    for part in OURS:
        _add(found, part, None)
    for plugin, loaded in load("sharedattn.mechanisms"):
        for part in loaded if isinstance(loaded, (list, tuple)) else [loaded]:
            _add(found, part, plugin)
    return found


def is_always_listed(part: Branch | Gate) -> bool:
    """Whether documents and tables of costs list the part even if nothing uses it.

    They list the parts that were built in before plug-ins existed, since documents are part of
    fingerprints. Other parts are only listed if used.
    """
    return any(part is own for own in _ALWAYS_LISTED)


def branch_of(letter: str) -> Branch:
    """Look up a branch by its letter.

    Raises:
        InputError: there is none.
    """
    known = registry().branches
    if letter not in known:
        listed = ", ".join(f"{b.letter} ({b.name})" for b in known.values())
        raise InputError(
            f"{letter!r} is no kind of layer here; known are {listed}. If a plug-in adds it, "
            f"install that plug-in"
        )
    return known[letter]


def gate_of(name: str) -> Gate:
    """Look up a gate by its name.

    Raises:
        InputError: there is none.
    """
    known = registry().gates
    if name not in known:
        raise InputError(
            f"{name!r} is no gate here; known are {', '.join(known)}. If a plug-in adds it, "
            f"install that plug-in"
        )
    return known[name]


def plugins_of(kinds: Iterable[str], gates: Iterable[str]) -> dict[str, Plugin]:
    """The plug-ins that provide these kinds of layer and gates.

    Args:
        kinds: letters of branches, perhaps repeated.
        gates: names of gates, perhaps repeated.

    Returns:
        Plug-ins by `branch LETTER` or `gate NAME`, sorted; built-in parts are omitted.
    """
    parts = {*(f"branch {kind}" for kind in kinds), *(f"gate {name}" for name in gates)}
    known = registry().plugins
    return {part: known[part] for part in sorted(parts) if part in known}


def _add(found: Registry, part: object, plugin: Plugin | None) -> None:
    if isinstance(part, Branch):
        _check_branch(found, part, plugin)
        found.branches[part.letter] = part
        found.channels.update((channel.name, channel) for channel in part.leaves)
        what = f"branch {part.letter}"
    elif isinstance(part, Gate):
        _check_gate(found, part, plugin)
        found.gates[part.name] = part
        what = f"gate {part.name}"
    else:
        raise InputError(
            f"the plug-in {plugin} registers {part!r}, which is neither a Branch nor a Gate; its "
            f"entry point names an object of one of these classes, or a list of them"
        )
    if plugin is not None:
        found.plugins[what] = plugin


def _check_branch(found: Registry, part: Branch, plugin: Plugin | None) -> None:
    if not _LETTER.fullmatch(part.letter) or not _WORD.fullmatch(part.name):
        raise _refused(
            plugin,
            f"has the letter {part.letter!r} and the name {part.name!r}; a letter is one of A to "
            f"Z, and a name a word in lower case",
        )
    if part.letter in _RESERVED_LETTERS:
        raise _refused(plugin, f"takes the letter {part.letter}, which is reserved")
    if part.is_absent and (part.options or part.takes or part.leaves):
        raise _refused(
            plugin,
            f"leaves out whole layers by {part.letter}, but has options, or takes or leaves "
            f"something; give it `options`, `takes` and `leaves` of ()",
        )
    for other in found.branches.values():
        for key in ("letter", "rank"):
            if getattr(part, key) == getattr(other, key):
                raise _taken(found, plugin, key, getattr(part, key), f"branch {other.letter}")
    _check_name(found, plugin, part.name)
    codes = [code for option in part.options for code in option.codes]
    _check_codes(found, plugin, codes)
    for option in part.options:
        # A layer is constructed with the names of its options and gate as keywords.
        if option.name in _RESERVED_NAMES or option.name in found.gates:
            raise _refused(plugin, f"names an option {option.name!r}, which is reserved")
    _check_keys(found, plugin, [option.key for option in part.options])


def _check_gate(found: Registry, part: Gate, plugin: Plugin | None) -> None:
    if not all(map(_WORD.fullmatch, (part.name, part.code, part.cell_code))):
        raise _refused(
            plugin,
            f"has the name {part.name!r} and the codes {part.code!r} and {part.cell_code!r}; each "
            f"is a word in lower case",
        )
    options = {option.name for branch in found.branches.values() for option in branch.options}
    if part.name in _RESERVED_NAMES or part.name in options:
        raise _refused(plugin, f"names a gate {part.name!r}, which is reserved")
    _check_name(found, plugin, part.name)
    for other in found.gates.values():
        if part.rank == other.rank:
            raise _taken(found, plugin, "rank", part.rank, f"gate {other.name}")
    _check_codes(found, plugin, list(dict.fromkeys((part.code, part.cell_code))))
    _check_keys(found, plugin, [part.code])


def _check_name(found: Registry, plugin: Plugin | None, name: str) -> None:
    """Refuse a name that is already used for other costs or weights."""
    if name in _RESERVED_PARTS:
        raise _refused(plugin, f"has the name {name!r}, which is reserved; give it another")
    taken = {branch.name: f"branch {branch.letter}" for branch in found.branches.values()}
    taken |= {gate.name: f"gate {gate.name}" for gate in found.gates.values()}
    if name in taken:
        raise _taken(found, plugin, "name", name, taken[name])


def _check_codes(found: Registry, plugin: Plugin | None, codes: list[str]) -> None:
    taken = dict.fromkeys(_RESERVED_CODES, "context broadcasting")
    for branch in found.branches.values():
        taken |= {code: f"branch {branch.letter}" for o in branch.options for code in o.codes}
    for gate in found.gates.values():
        taken |= dict.fromkeys((gate.code, gate.cell_code), f"gate {gate.name}")
    for code in codes:
        if code in taken:
            raise _taken(found, plugin, "code", f"/{code}", taken[code])
        if codes.count(code) > 1:
            raise _refused(plugin, f"registers the code /{code} twice")


def _check_keys(found: Registry, plugin: Plugin | None, keys: list[str]) -> None:
    """Refuse keys that already have a meaning in a space's document."""
    taken: dict[str, str] = {}
    for branch in found.branches.values():
        taken |= {option.key: f"branch {branch.letter}" for option in branch.options}
    taken |= {gate.code: f"gate {gate.name}" for gate in found.gates.values()}
    for key in keys:
        if key in _RESERVED_KEYS:
            raise _refused(plugin, f"registers the key {key}, which is reserved")
        if key in taken:
            raise _taken(found, plugin, "key", key, taken[key])
        if keys.count(key) > 1:
            raise _refused(plugin, f"registers the key {key} twice")


def _taken(
    found: Registry, plugin: Plugin | None, key: str, value: object, owner: str
) -> InputError:
    of = found.plugins.get(owner)
    return _refused(
        plugin,
        f"takes the {key} {value}, which {owner} of {of or 'sharedattn'} has; give it another, or "
        f"uninstall one of the two",
    )


def _refused(plugin: Plugin | None, why: str) -> InputError:
    return InputError(f"the plug-in {plugin or 'sharedattn'} {why}")


def with_parts(known: Registry, parts: Iterable[Branch | Gate]) -> Registry:
    """A new registry with further parts; `known` is unchanged.

    Raises:
        InputError: a part registers something that is taken.
    """
    found = Registry(
        dict(known.branches), dict(known.gates), dict(known.plugins), dict(known.channels)
    )
    for part in parts:
        _add(found, part, None)
    return found


_CLEAR: list[Callable[[], None]] = []


def registry_cache(maxsize: int | None) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """`functools.lru_cache` for results that depend on the registry.

    Normally nothing is registered later. Tests that do call `clear_registry_caches`.
    """

    def cached(function: Callable[P, T]) -> Callable[P, T]:
        wrapper = lru_cache(maxsize)(function)
        _CLEAR.append(wrapper.cache_clear)
        return wrapper  # type: ignore[return-value]

    return cached


def clear_registry_caches() -> None:
    """Clear the caches of `registry_cache`."""
    for clear in _CLEAR:
        clear()
