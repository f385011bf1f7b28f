"""Read state dicts from checkpoint files of other trainings: find the mapping and its names.

A training saves its model's state dict by itself or below some key, beside optimisers and
counters, and under the names of whatever wrapped the model: DDP, torch.compile, averaging, a
Lightning module. What is looked for is known, the names of a backbone, so the mapping that has
them is found whatever it is called. Nothing in a file is executed.
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
"""Names that a message lists, of those at fault."""

_MAX_NESTING = 4
_PREFERRED = ("state_dict_ema", "model_ema", "state_dict", "model")
"""The keys that timm's loader looks below, in its order: averaged weights come first."""

_AVERAGED = re.compile(r"(^|[_.])(ema|averaged|swa)([_.]|$)")

# Wrappers that stand anywhere in a name; no module is called so by itself.
_WRAPPERS = re.compile(
    r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
)

# What readers raise on files that are something else, or that would execute something.
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
    """The state dict in a file of safetensors or of torch.

    Args:
        path: the file.
        wanted: the names that it is to have.

    Returns:
        Tensors on the CPU: of the mapping in the file that has the wanted names, in their names;
        of averaged weights before those they are averages of. Where no mapping has them, the
        only one or the one of timm's keys, in the names that are nearest to the wanted ones.

    Raises:
        InputError: a file that cannot be read, would execute something, or holds no state dict;
            several of which nothing says which is meant.
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
    """What a file holds, on the CPU.

    Raises:
        InputError: a file that cannot be read, or holds objects that reading would have to make.
    """
    try:
        with path.open("rb") as file:
            # Of safetensors: 8 bytes of length, then a JSON object, whatever the file is called.
            is_safetensors = path.suffix == ".safetensors" or file.read(9)[8:] == b"{"
        if is_safetensors:
            return load_file(path, device="cpu")
        # timm's own checkpoints hold their arguments.
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
        # torch's own text advises to read it with trust.
        if "TorchScript" in why:
            why = "it is a TorchScript program; save the state_dict() of the model it was made of"
        elif "weights_only" in why:
            why = "it is damaged, or something else"
        raise InputError(
            f"{path} cannot be read as safetensors or as a torch file of tensors alone: {why}"
        ) from error


def _objects(path: Path) -> list[str]:
    """Classes and functions that reading a file with trust would call."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except _UNREADABLE:
        return []


def _state_dicts(contents: Any, path: Path) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Mappings of names to tensors in a file, by the keys that lead to them.

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
        # States of optimisers are numbered.
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
    """The parts of a state dict that have the wanted names and no others, by their prefixes.

    A prefix is that of all names, or of some: then the others are other models' or losses', or
    stand beside the wrapped part under names of their own, as a head beside a backbone.
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
        # In the order of the wanted names, which is that of the network.
        for part in (below, beside | below):
            # Of two weights that would get one name neither is the one that is meant.
            is_whole = part is below or len(part) == len(below) + len(beside)
            if is_whole and part.keys() == set(wanted):
                fitting[prefix.rstrip(".")] = {name: part[name] for name in wanted}
                break
    return fitting


def _nearest_names(state: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """A state dict without the prefix that keeps most of its names from being wanted ones.

    Blocks of another family's stages end like wanted names too: a wrapper's prefix is of nearly
    all names.
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
    """What stands before wanted names, empty or with a dot at its end, the most frequent first."""
    known = set(wanted)
    votes: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        # Ends of a name are wanted names too where modules are called alike: the longest counts.
        for i in range(len(parts)):
            if ".".join(parts[i:]) in known:
                votes["".join(f"{part}." for part in parts[:i])] += 1
                break
    return [prefix for prefix, _ in votes.most_common()]


def _chosen(
    candidates: Mapping[tuple[str, str], dict[str, Tensor]], path: Path
) -> dict[str, Tensor]:
    """The state dict that is meant, of those by their key in the file and the prefix below it.

    Raises:
        InputError: nothing says which.
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
