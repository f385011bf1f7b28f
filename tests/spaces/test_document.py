from __future__ import annotations

from typing import Any

import pytest

from sharedattn.errors import InputError
from sharedattn.placement import LayerChoice
from sharedattn.spaces.document import (
    Section,
    read_kind,
    read_layer,
    read_list,
    read_number,
    read_numbers,
    read_one_of,
    read_text,
)
from sharedattn.yaml_text import DocumentError, located, read_yaml


def test_yaml_gives_plain_values_and_the_line_of_each_path() -> None:
    lines: dict[Any, int] = {}
    document = read_yaml("a: 1\nb:\n  - x\n  - {c: [2, 3]}\n", lines)
    assert document == {"a": 1, "b": ["x", {"c": [2, 3]}]}
    assert lines == {
        (): 1,
        ("a",): 1,
        ("b",): 2,
        ("b", 0): 3,
        ("b", 1): 4,
        ("b", 1, "c"): 4,
        ("b", 1, "c", 0): 4,
        ("b", 1, "c", 1): 4,
    }


def test_yaml_aliases_are_written_out() -> None:
    assert read_yaml("a: &x [V, L]\nb: *x\n", {}) == {"a": ["V", "L"], "b": ["V", "L"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the document is empty"),
        ("a: [", "the document is not YAML of plain values"),
        ("a: 1\n---\nb: 2\n", "the document is not YAML of plain values"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
        ("a: 1\nb: {c: 1, c: 2}\n", r"b\.c: this key stands here twice"),
        ("1: a\n", "the key 1 is no text"),
        ("a:\n  ? [b]\n  : c\n", r"a: the key \['b'\] is no text"),
        ("a: 2021-99-99\n", "a: this is not a plain value: month must be in"),
        ("a: &a [*a]\n", "nests deeper than 30 levels; look for an alias"),
        ("- " * 3000, "the document nests deeper than 30 levels"),
    ],
)
def test_yaml_that_is_no_document_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_yaml(text, {})


def test_aliases_cannot_blow_a_small_file_up() -> None:
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for i in range(1, 9):
        text += f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n"
    with pytest.raises(DocumentError, match="more than 100000 values"):
        read_yaml(text, {})


def test_an_error_names_its_place_once() -> None:
    with pytest.raises(DocumentError, match=r"^a\[1\]\.b: rule$") as caught, located(("c",)):
        raise DocumentError(("a", 1, "b"), "rule")
    assert caught.value.path == ("a", 1, "b")
    with pytest.raises(DocumentError, match=r"^c: plain$"), located(("c",)):
        raise InputError("plain")


def test_section_reads_known_keys_alone() -> None:
    section = Section({"a": 2}, ("s",), ("a", "b"))
    assert section.take("a", read_number) == 2
    assert section.take("b", read_number, 5) == 5
    assert "a" in section
    assert "b" not in section
    with pytest.raises(DocumentError, match="s: `b` is missing here"):
        section.take("b", read_number)
    with pytest.raises(DocumentError, match=r"s\.c: unknown key 'c'; known here: a, b"):
        Section({"c": 2}, ("s",), ("a", "b"))
    with pytest.raises(DocumentError, match="expected a mapping of a, b, but got 7"):
        Section(7, (), ("a", "b"))


@pytest.mark.parametrize(
    ("value", "numbers"),
    [(3, (3,)), ("2..5", (2, 3, 4, 5)), (" 0 .. 0 ", (0,)), ([5, 2], (2, 5)), (1000, (1000,))],
)
def test_numbers(value: Any, numbers: tuple[int, ...]) -> None:
    assert read_numbers(value, ()) == numbers


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("5..2", "expected a rising range, but got '5..2'"),
        ("2..1001", "a whole number from 0 to 1000, but got 1001"),
        (-1, "a whole number from 0 to 1000, but got -1"),
        (True, "a whole number from 0 to 1000, but got True"),
        (2.0, "a whole number, a list, or a range a..b, but got 2.0"),
        ("x", "a whole number, a list, or a range a..b, but got 'x'"),
        ([1, 1], r"x\[1\]: 1 is listed twice; leave one out"),
        ([1, "2..3"], r"x\[1\]: expected a whole number from 0 to 1000, but got '2..3'"),
        ([], "x: this list is empty; give at least one entry"),
    ],
)
def test_numbers_refused(value: Any, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        read_numbers(value, ("x",))


def test_one_entry_is_a_list_of_one() -> None:
    assert read_list(read_text)("a", ()) == ("a",)
    assert read_list(read_text)(["b", " a "], ()) == ("b", "a")


def test_words_and_kinds() -> None:
    assert read_one_of("a", "b")("b", ()) == "b"
    assert read_kind("E", ()) == "E"
    with pytest.raises(DocumentError, match=r"expected one of a, b, but got \['a'\]"):
        read_one_of("a", "b")(["a"], ())
    with pytest.raises(DocumentError, match="expected one of V, L, E, N, X, S, but got 'Q'"):
        read_kind("Q", ())
    with pytest.raises(DocumentError, match="expected a text, but got ' '"):
        read_text(" ", ())


@pytest.mark.parametrize(
    "choice",
    [
        LayerChoice.of("V"),
        LayerChoice.of("L", dia=3, cb=True),
        LayerChoice.of("E", slots=16, dia=11, cb=True),
        LayerChoice.of("E", slots=16, dia=11, cb=True, form="mea"),
        LayerChoice.of("L", dia=3, form="lowrank16"),
        LayerChoice.of("N", cb=True),
    ],
)
def test_a_layer_is_read_as_it_is_written(choice: LayerChoice) -> None:
    assert read_layer(str(choice), ()) == choice


def test_a_layer_of_external_attention_has_64_slots_by_default() -> None:
    assert read_layer("E/cb", ()) == LayerChoice.of("E", slots=64, cb=True)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "Q",
            r"x\[3\]: 'Q': 'Q' is no kind of layer here; known are V \(vanilla\), L \(less\), E",
        ),
        ("V2", "'V2' in 'V2' is no layer; write a kind and options, such as E/s16/d0/cb"),
        ("V,L", "'V,L' in 'V,L' is no layer"),
        ("V/s16", "'V/s16' says /s16, which belongs to kind E"),
        ("V/keys", "'V/keys' says /keys, which belongs to kind L"),
        ("L/d0/d0", "'L/d0/d0' repeats /d; an option stands once"),
        ("E/s0", "`slots` is 0; it is a whole number of at least 1"),
        (7, "expected a text, but got 7"),
    ],
)
def test_a_layer_refused(value: Any, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        read_layer(value, ("x", 3))
