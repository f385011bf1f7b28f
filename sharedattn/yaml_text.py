"""Strict parsing of YAML documents of plain values, with errors that name the line.

Numbers are those of YAML 1.2: `1e-3` is a number, which YAML 1.1 and PyYAML read as text. Text
that the two versions read as different numbers, such as `010` and `1:30`, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import yaml

from sharedattn.errors import InputError

T = TypeVar("T")
DocumentPath = tuple[str | int, ...]

# Aliases let a small file expand to a huge tree; valid documents are far smaller.
_MAX_NODES = 100_000
_MAX_NESTING = 30
_FLOAT_TAG = "tag:yaml.org,2002:float"
_COLLECTION_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_INT_TAG = "tag:yaml.org,2002:int"
# A float in YAML 1.2 that YAML 1.1 reads as text: an exponent without a sign or a point.
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+")
# Octal and base 60 in YAML 1.1, decimal or text in YAML 1.2.
_OTHER_NUMBER = re.compile(r"[-+]?(?:0[0-9_]+|[0-9][0-9_]*(?::[0-9_]+)+(?:\.[0-9_]*)?)")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with the numbers of YAML 1.2."""


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which also quotes text that is a number in YAML 1.2."""


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        _FLOAT_TAG, re.compile(rf"^(?:{_FLOAT.pattern})$"), list("-+.0123456789")
    )


class DocumentError(InputError):
    """An invalid document, with the place of the error.

    Attributes:
        path: the keys and indices that lead to the place.
        rule: what is wrong there, without the place.
    """

    def __init__(self, path: DocumentPath, rule: str) -> None:
        self.path = path
        self.rule = rule
        place = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in path).lstrip(".")
        super().__init__(f"{place}: {rule}" if place else rule)


@contextmanager
def located(path: DocumentPath) -> Iterator[None]:
    """Add the place `path` to an `InputError` that has none."""
    try:
        yield
    except DocumentError:
        raise
    except InputError as error:
        raise DocumentError(path, str(error)) from error


def write_yaml(document: Any) -> str:
    """Write a document of plain values, with keys in their own order."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=99)


def read_document(
    text: str, source: str, read: Callable[[Any], T], *, number_keys: bool = False
) -> T:
    """Parse a YAML document and read it.

    Args:
        text: the document.
        source: name of the document in messages.
        read: reads the parsed document; the line is added to its `DocumentError`s.
        number_keys: as in `read_yaml`.

    Raises:
        InputError: an invalid document; the message has source and line.
    """
    lines: dict[DocumentPath, int] = {}
    try:
        return read(read_yaml(text, lines, number_keys=number_keys))
    except DocumentError as error:
        known = (error.path[:n] for n in range(len(error.path), -1, -1))
        line = next((lines[path] for path in known if path in lines), 1)
        context = (text.splitlines() or [""])[line - 1].strip()
        raise InputError(f"{source}, line {line} ({context}): {error}") from error
    except InputError as error:
        raise InputError(f"{source}: {error}") from error


def read_yaml(text: str, lines: dict[DocumentPath, int], *, number_keys: bool = False) -> Any:
    """Parse one YAML document with safe tags only, refusing repeated keys.

    Args:
        text: the document.
        lines: filled with the line (from 1) in which the entry at each path begins, up to the
            place of an error.
        number_keys: whether keys may also be whole numbers.

    Raises:
        InputError: text that is not one YAML document of plain values.
        DocumentError: a key that is repeated or not text, a number that depends on the version
            of YAML, or a tree that is too large.
    """
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            raise InputError("the document is empty; write one")
        keys = (str, int) if number_keys else (str,)
        return _plain(loader, root, (), root.start_mark.line + 1, lines, keys)
    except yaml.YAMLError as error:
        raise InputError(
            f"the document is not YAML of plain values: {' '.join(str(error).split())}"
        ) from error
    except RecursionError as error:
        raise InputError(
            f"the document nests deeper than {_MAX_NESTING} levels; flatten it"
        ) from error


def _plain(
    loader: yaml.SafeLoader,
    node: yaml.Node,
    path: DocumentPath,
    line: int,
    lines: dict[DocumentPath, int],
    keys: tuple[type, ...],
) -> Any:
    lines[path] = line
    if len(lines) > _MAX_NODES or len(path) > _MAX_NESTING:
        raise DocumentError(
            path[:3],
            f"the document has more than {_MAX_NODES} values, or nests deeper than {_MAX_NESTING} "
            f"levels; look for an alias inside itself",
        )
    if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTION_TAGS:
        raise DocumentError(path, f"this value has the tag {node.tag}; write a plain value")
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str | int, Any] = {}
        for key_node, value_node in node.value:
            key_line = key_node.start_mark.line + 1
            key = _plain(loader, key_node, path, key_line, {}, keys)
            if type(key) not in keys:
                raise DocumentError(path, f"the key {key!r} is no text; write text")
            if key in mapping:
                lines[(*path, key)] = key_line
                raise DocumentError((*path, key), "this key stands here twice; leave one out")
            mapping[key] = _plain(loader, value_node, (*path, key), key_line, lines, keys)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [
            _plain(loader, item, (*path, i), item.start_mark.line + 1, lines, keys)
            for i, item in enumerate(node.value)
        ]
    if node.tag in (_INT_TAG, _FLOAT_TAG) and _OTHER_NUMBER.fullmatch(node.value):
        raise DocumentError(
            path,
            f"{node.value} is one number in YAML 1.1 and another, or text, in YAML 1.2; write a "
            f"number without leading zeros and colons, or text in quotes",
        )
    try:
        return loader.construct_object(node)
    except ValueError as error:
        raise DocumentError(path, f"this is not a plain value: {error}") from error
