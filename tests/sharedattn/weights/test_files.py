"""Which mapping in a file has the wanted names, and under which prefix; toy names throughout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sharedattn.errors import InputError
from sharedattn.weights.files import read_state_dict

WANTED = ("stem.w", "blocks.0.norm.w", "blocks.1.norm.w", "norm.w")


def state(prefix: str = "", value: float = 1.0) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": torch.full((2,), value) for name in WANTED}


def read(tmp_path: Path, content: Any) -> dict[str, torch.Tensor]:
    torch.save(content, tmp_path / "weights.pth")
    return read_state_dict(tmp_path / "weights.pth", WANTED)


def test_names_that_end_alike_do_not_mislead(tmp_path: Path) -> None:
    """`norm.w` is wanted, and `blocks.0.norm.w` ends with it; the longest wanted end counts."""
    assert list(read(tmp_path, state("blocks."))) == list(WANTED)
    # In the order of the wanted names, whatever that of the file.
    turned = dict(reversed(list(state("a.b.").items())))
    assert list(read(tmp_path, turned)) == list(WANTED)


def test_what_does_not_fit_keeps_its_names_but_for_a_common_prefix(tmp_path: Path) -> None:
    other = {"layers.0.blocks.0.norm.w": torch.ones(2), "layers.1.down.w": torch.ones(2)}
    assert list(read(tmp_path, other)) == list(other)
    partly = state("net.")
    del partly["net.stem.w"]
    assert list(read(tmp_path, partly)) == list(WANTED[1:])


def test_wrappers_inside_a_name_go_unless_names_would_meet(tmp_path: Path) -> None:
    inside = {name.replace("norm", "_orig_mod.norm"): w for name, w in state().items()}
    assert list(read(tmp_path, inside)) == list(WANTED)
    both = state() | {"_orig_mod.norm.w": torch.zeros(2)}
    assert "_orig_mod.norm.w" in read(tmp_path, {"model": both})


def test_which_of_several(tmp_path: Path) -> None:
    both = {"model": state(value=1), "model_ema": state(value=2), "net": state(value=3)}
    assert read(tmp_path, both)["norm.w"][0] == 2
    del both["model_ema"]
    assert read(tmp_path, both)["norm.w"][0] == 1
    del both["model"]
    assert read(tmp_path, both)["norm.w"][0] == 3
    # The only one that fits, though another has a key of timm's.
    both["state_dict"] = {"else.w": torch.ones(1)}
    assert read(tmp_path, both)["norm.w"][0] == 3
    with pytest.raises(InputError, match="holds 2 state dicts.* 'a', 'b'; save"):
        read(tmp_path, {"a": state(), "b": state()})
