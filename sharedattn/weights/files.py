"""Read state dicts from checkpoint files of other trainings.

A training saves its model's state dict by itself or below some key, beside optimisers and
counters, and under the names of a wrapper: DDP, torch.compile, averaging, a Lightning module.
Since the backbone's names are known, the mapping that has them is found whatever its key. Nothing
in a file is executed.
"""

from __future__ import annotations

import argparse
import pickle
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sharedattn.errors import InputError

NUM_NAMED = 3
"""Number of names that an error message lists."""

_MAX_NESTING = 4
_PREFERRED = ("state_dict_ema", "model_ema", "state_dict", "model")
"""The keys under which timm's loader looks, in its order: averaged weights come first."""

_AVERAGED = re.compile(r"(^|[_.])(ema|averaged|swa)([_.]|$)")

# Wrappers whose names may stand anywhere in a name; no module has such a name itself.
_WRAPPERS = re.compile(
    r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
)

# What readers raise on files that are something else, or would execute something.
_UNREADABLE = (
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    OSError,
    OverflowError,
    pickle.UnpicklingError,
    RuntimeError,
    SafetensorError,
    TypeError,
    UnicodeDecodeError,
    ValueError,
)


def read_state_dict(path: Path, wanted: Collection[str]) -> dict[str, Tensor]:
    """Read the state dict in a safetensors or torch file.

    Args:
        path: the file.
        wanted: the expected names.

    Returns:
        Tensors on the CPU, from the mapping that has the wanted names after its prefix is removed;
        averaged weights are preferred. If no mapping has them, the only mapping or the one under
        timm's keys, with the names that come nearest.

    Raises:
        InputError: the file cannot be read, would execute something, or has no state dict or
            several equally plausible ones.
    """
    found = dict(_state_dicts(_contents(path), path))
    fitting = {
        (key, prefix): part
        for key, mapping in found.items()
        for prefix, part in _in_wanted_names(mapping, wanted).items()
    }
    return _chosen(
        fitting or {(key, ""): _nearest_names(mapping, wanted) for key, mapping in found.items()},
        path,
    )


def _contents(path: Path) -> Any:
    """Load a file's contents on the CPU.

    Raises:
        InputError: the file cannot be read, or holds objects other than tensors and plain values.
    """
    try:
        with path.open("rb") as file:
            # Safetensors, whatever the suffix: 8 bytes of length, then a JSON object.
            is_safetensors = path.suffix == ".safetensors" or file.read(9)[8:] == b"{"
        if is_safetensors:
            return load_file(path, device="cpu")
        # timm's own checkpoints contain their arguments.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        objects = _objects(path) if isinstance(error, pickle.UnpicklingError) else []
        if objects:
            raise InputError(
                f"{path} holds objects of {', '.join(objects[:NUM_NAMED])} and not weights "
                f"alone; nothing in it was executed. Save the model's state_dict() where it was "
                f"trained: torch.save(model.state_dict(), FILE)"
            ) from error
        why = str(error).partition("\n")[0] or type(error).__name__
        # torch's own message recommends an unsafe load.
        if "TorchScript" in why:
            why = "it is a TorchScript program; save the state_dict() of the model it was made of"
        elif "weights_only" in why:
            why = "it is damaged, or something else"
        raise InputError(
            f"{path} cannot be read as safetensors or as a torch file of tensors alone: {why}"
        ) from error


def _objects(path: Path) -> list[str]:
    """Classes and functions that an unsafe load of the file would call."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except _UNREADABLE:
        return []


def _state_dicts(contents: Any, path: Path) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the mappings of names to tensors in a file, with the keys that lead to them.

    Raises:
        InputError: there is none.
    """
    if _is_state_dict(contents):
        yield "", contents
        return
    found = list(_nested(contents, (), _MAX_NESTING))
    if not found:
        other = contents if isinstance(contents, Mapping) else {type(contents).__name__: None}
        keys = [repr(str(name)) for name, value in other.items() if not isinstance(value, Tensor)]
        raise InputError(
            f"{path} holds {', '.join(islice(keys, NUM_NAMED)) or 'nothing'} and no state dict, "
            f"by itself or below a key such as model or state_dict; save the model's state_dict()"
        )
    yield from found


def _nested(
    contents: Any, keys: tuple[str, ...], depth: int
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    if isinstance(contents, argparse.Namespace) or not isinstance(contents, Mapping) or not depth:
        return
    for key, value in contents.items():
        # Skips optimiser states, whose keys are numbers.
        if not isinstance(key, str):
            continue
        if _is_state_dict(value):
            yield ".".join((*keys, key)), dict(value)
        else:
            yield from _nested(value, (*keys, key), depth - 1)


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def _in_wanted_names(
    state: Mapping[str, Tensor], wanted: Collection[str]
) -> dict[str, dict[str, Tensor]]:
    """The parts of a state dict that have exactly the wanted names, by their prefixes.

    A prefix may be on all names or on some. In the latter case the other names belong to other
    models or losses, or to parts beside the wrapped one, such as a head beside a backbone.
    """
    unwrapped = _unwrapped(state)
    fitting = {}
    for prefix in _prefixes(unwrapped, wanted):
        below = {
            name.removeprefix(prefix): weight
            for name, weight in unwrapped.items()
            if name.startswith(prefix)
        }
        beside = {
            name: weight for name, weight in unwrapped.items() if not name.startswith(prefix)
        }
        # Ordered as the wanted names, which is the network's order.
        for part in (below, beside | below):
            # Two weights for one name are ambiguous: use neither.
            is_whole = part is below or len(part) == len(below) + len(beside)
            if is_whole and part.keys() == set(wanted):
                fitting[prefix.rstrip(".")] = {name: part[name] for name in wanted}
                break
    return fitting


def _nearest_names(state: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """Strip the prefix that hides most of the wanted names.

    Another family's stages may end in wanted names too, so only a prefix of nearly all names is
    taken for a wrapper's.
    """
    unwrapped = _unwrapped(state)
    prefix = next(
        (
            prefix
            for prefix in _prefixes(unwrapped, wanted)
            if 3 * sum(name.startswith(prefix) for name in unwrapped) >= 2 * len(unwrapped)
        ),
        "",
    )
    nearest = {name.removeprefix(prefix): weight for name, weight in unwrapped.items()}
    return nearest if len(nearest) == len(state) else dict(state)


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    unwrapped = {_WRAPPERS.sub("", name): weight for name, weight in state.items()}
    return unwrapped if len(unwrapped) == len(state) else dict(state)


def _prefixes(state: Collection[str], wanted: Collection[str]) -> list[str]:
    """Prefixes of wanted names, empty or ending in a dot, the most frequent first."""
    known = set(wanted)
    votes: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        # A name may end in several wanted names, if modules repeat names: the longest counts.
        for i in range(len(parts)):
            if ".".join(parts[i:]) in known:
                votes["".join(f"{part}." for part in parts[:i])] += 1
                break
    return [prefix for prefix, _ in votes.most_common()]


def _chosen(
    candidates: Mapping[tuple[str, str], dict[str, Tensor]], path: Path
) -> dict[str, Tensor]:
    """Choose among state dicts, given by their key in the file and their prefix.

    Raises:
        InputError: the choice is ambiguous.
    """
    for key in _PREFERRED:
        of_key = [state for (own_key, _), state in candidates.items() if own_key == key]
        if len(of_key) == 1:
            return of_key[0]
    names = {".".join(filter(None, at)): state for at, state in candidates.items()}
    averaged = [name for name in names if _AVERAGED.search(name)]
    if len(averaged) == 1 and len(names) == 2:
        return names[averaged[0]]
    if len(names) > 1:
        raise InputError(
            f"{path} holds {len(names)} state dicts, and nothing says which is meant: "
            f"{', '.join(map(repr, names))}; save the one alone"
        )
    return next(iter(names.values()))
