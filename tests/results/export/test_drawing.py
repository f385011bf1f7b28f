from collections.abc import Callable
from contextlib import AbstractContextManager

from sharedattn.placement import NetworkSpec
from sharedattn.results.export.drawing import drawing_key, placement_drawing

Plugged = Callable[[], AbstractContextManager[None]]


def test_the_drawing_names_what_each_layer_does() -> None:
    spec = NetworkSpec.parse("vit: V/d0,N/cb,L/d0,E/s5/d1/cb")
    assert placement_drawing(spec) == (
        "stage 1     V N L E\n  slots     . . . 5\n  DIA unit  1 . 1 2\n  CB        . x . x"
    )
    two_stages = NetworkSpec.parse("vit: V1 | E1V1/s128")
    assert placement_drawing(two_stages) == ("stage 1    V\nstage 2    E   V\n  slots  128   .")


def test_the_drawing_of_a_plug_ins_kinds_and_gates(plugged_in: Plugged) -> None:
    with plugged_in():
        spec = NetworkSpec.parse("vit: P/w7/q0,V/q0,E/s16/d0,V | E1")
        assert placement_drawing(spec) == (
            "stage 1          P  V  E  V\n"
            "  slots          .  . 16  .\n"
            "  width          7  .  .  .\n"
            "  DIA unit       .  .  1  .\n"
            "  squeeze gate   1  1  .  .\n"
            "stage 2          E\n"
            "  slots         64"
        )
        assert " ".join(drawing_key(spec).split()) == (
            "V vanilla attention, E external attention, P token pooling; slots: memory slots of "
            "external attention; width: width of token pooling; DIA unit: layers of one number "
            "share a cell; squeeze gate: layers of one number share a cell."
        )
