"""Branches, gates and options as a space's document names them."""

from __future__ import annotations

from collections.abc import Iterable

from sharedattn.mechanisms.interface import Branch, Gate, NumberOption, Option, OptionValue
from sharedattn.mechanisms.registry import registry
from sharedattn.spaces.document import read_list, read_numbers, read_text
from sharedattn.yaml_text import DocumentPath, located

Value = int | str
Values = tuple[OptionValue | None, ...]


def option_owners() -> dict[str, tuple[Branch, Option]]:
    """Every option with its branch, by the key that documents have for it; branches by rank."""
    return {o.key: (branch, o) for branch in registry().by_rank for o in branch.options}


def gates_by_code() -> dict[str, Gate]:
    """Every gate by the key that documents have for its numbers of groups; by rank."""
    return {gate.code: gate for gate in registry().gates_by_rank}


def default_values(option: Option) -> Values:
    """The values of an option that a stage says nothing of."""
    return (option.default if isinstance(option, NumberOption) else None,)


def value_text(option: Option, value: OptionValue | None) -> Value:
    """A value in a space's words, where that of a layer that names no form has a name too."""
    if isinstance(option, NumberOption):
        assert isinstance(value, int)
        return value
    return option.document_text(value)


def read_value(option: Option, value: Value) -> OptionValue | None:
    """The inverse of `value_text`.

    Raises:
        InputError: no form of the option.
    """
    if isinstance(option, NumberOption):
        return value
    return option.from_document_text(str(value))


def read_values(option: Option, value: object, path: DocumentPath) -> Values:
    """A list of values, or one.

    Raises:
        DocumentError: no values of the option.
    """
    if isinstance(option, NumberOption):
        return read_numbers(value, path)

    def read_form(item: object, at: DocumentPath) -> OptionValue | None:
        text = read_text(item, at)
        with located(at):
            return option.from_document_text(text)

    return read_list(read_form)(value, path)


def listed(names: Iterable[str]) -> str:
    """Names as people list them: `V, L or E`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
