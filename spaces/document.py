"""Strict reading of a space's document: keys and types are checked, errors give the line.

A document is plain dictionaries, lists and scalars; a path into it is a tuple of keys and indices.
A reader is a function of (value, path) that returns the value in its final type or raises
`DocumentError`; `sharedattn.yaml_text` parses the document and maps paths to lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from sharedattn.mechanisms.registry import registry
from sharedattn.placement import LayerChoice, parse_layer
from sharedattn.yaml_text import DocumentError, DocumentPath, located

T = TypeVar("T")
Reader = Callable[[Any, DocumentPath], T]

MAX_NUMBER = 1000
"""Far above any backbone's depth; keeps a typing error in `1..4` from filling the memory."""
_REQUIRED: Final = object()


class Section:
    """A mapping of a document, read key by key.

    Raises:
        DocumentError: not a mapping, or a key outside `known`.
    """

    def __init__(self, document: Any, path: DocumentPath, known: Sequence[str]) -> None:
        if not isinstance(document, Mapping):
            raise DocumentError(
                path, f"expected a mapping of {', '.join(known)}, but got {document!r}"
            )
        for key in document:
            if key not in known:
                raise DocumentError(
                    (*path, key), f"unknown key {key!r}; known here: {', '.join(known)}"
                )
        self._document = document
        self._path = path

    def __contains__(self, key: str) -> bool:
        return key in self._document

    def take(self, key: str, read: Reader[T], default: Any = _REQUIRED) -> T:
        """Read the value at `key`; `default`, in the document's form, stands in if absent.

        Raises:
            DocumentError: the key is absent and has no default, or `read` refuses the value.
        """
        value = self._document.get(key, default)
        if value is _REQUIRED:
            raise DocumentError(self._path, f"`{key}` is missing here")
        return read(value, (*self._path, key))


def read_text(value: Any, path: DocumentPath) -> str:
    """Read a text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise DocumentError(path, f"expected a text, but got {value!r}")
    return value.strip()


def read_number(value: Any, path: DocumentPath) -> int:
    """Read a whole number from 0 to `MAX_NUMBER`."""
    if type(value) is not int or not 0 <= value <= MAX_NUMBER:
        raise DocumentError(
            path, f"expected a whole number from 0 to {MAX_NUMBER}, but got {value!r}"
        )
    return value


def read_numbers(value: Any, path: DocumentPath) -> tuple[int, ...]:
    """Read a whole number, a list of them, or a range `a..b` that includes both ends; sorted."""
    if isinstance(value, str) and (ends := re.fullmatch(r"\s*(\d+)\s*\.\.\s*(\d+)\s*", value)):
        first, last = (read_number(int(end), path) for end in ends.groups())
        if first > last:
            raise DocumentError(path, f"expected a rising range, but got {value!r}")
        return tuple(range(first, last + 1))
    if not isinstance(value, int | list):
        raise DocumentError(
            path, f"expected a whole number, a list, or a range a..b, but got {value!r}"
        )
    return tuple(sorted(read_list(read_number)(value, path)))


def read_list(read: Reader[T]) -> Reader[tuple[T, ...]]:
    """A reader of one entry, or of a list of distinct entries."""

    def read_entries(value: Any, path: DocumentPath) -> tuple[T, ...]:
        if not isinstance(value, list):
            return (read(value, path),)
        entries: list[T] = []
        for i, item in enumerate(value):
            entry = read(item, (*path, i))
            if entry in entries:
                raise DocumentError((*path, i), f"{item!r} is listed twice; leave one out")
            entries.append(entry)
        if not entries:
            raise DocumentError(path, "this list is empty; give at least one entry")
        return tuple(entries)

    return read_entries


def read_one_of(*known: str) -> Reader[str]:
    """A reader of one word from a closed list."""

    def read_word(value: Any, path: DocumentPath) -> str:
        if value not in known:
            raise DocumentError(path, f"expected one of {', '.join(known)}, but got {value!r}")
        return str(value)

    return read_word


def read_kind(value: Any, path: DocumentPath) -> str:
    """Read the letter of a kind of layer."""
    return read_one_of(*registry().branches)(value, path)


def read_layer(value: Any, path: DocumentPath) -> LayerChoice:
    """Read one layer in a placement's long form, such as `V/d0/cb`; gate labels are kept."""
    text = read_text(value, path)
    with located(path):
        return parse_layer(text)
