"""Names of branches, gates and options in a space's document."""

from __future__ import annotations

from collections.abc import Iterable

from sharedattn.mechanisms.interface import Branch, Gate, NumberOption, Option, OptionValue
from sharedattn.mechanisms.registry import registry
from sharedattn.spaces.document import read_list, read_numbers, read_text
from sharedattn.yaml_text import DocumentPath, located

Value = int | str
Values = tuple[OptionValue | None, ...]


def option_owners() -> dict[str, tuple[Branch, Option]]:
    """Every option with its branch, by document key; branches are in the order of ranks."""
    return {o.key: (branch, o) for branch in registry().by_rank for o in branch.options}


def gates_by_code() -> dict[str, Gate]:
    """Every gate, by the document key of its numbers of groups; in the order of ranks."""
    return {gate.code: gate for gate in registry().gates_by_rank}


def default_values(option: Option) -> Values:
    """The values of an option that a stage does not mention."""
    return (option.default if isinstance(option, NumberOption) else None,)


def value_text(option: Option, value: OptionValue | None) -> Value:
    """The text of a value in a space's document; a layer that names no form has one too."""
    if isinstance(option, NumberOption):
        assert isinstance(value, int)
        return value
    return option.document_text(value)


def read_value(option: Option, value: Value) -> OptionValue | None:
    """Invert `value_text`.

    Raises:
        InputError: `value` is not a form of the option.
    """
    if isinstance(option, NumberOption):
        return value
    return option.from_document_text(str(value))


def read_values(option: Option, value: object, path: DocumentPath) -> Values:
    """Read a list of values of an option, or a single one.

    Raises:
        DocumentError: a value that the option does not have.
    """
    if isinstance(option, NumberOption):
        return read_numbers(value, path)

    def read_form(item: object, at: DocumentPath) -> OptionValue | None:
        text = read_text(item, at)
        with located(at):
            return option.from_document_text(text)

    return read_list(read_form)(value, path)


def listed(names: Iterable[str]) -> str:
    """Join names for a sentence: `V, L or E`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
