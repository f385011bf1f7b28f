"""A trained model's weights are found in its checkpoint, whatever keys and wrappers stand above.

The files are those of public trainers: timm, Lightning, torchvision's references, DINO, averaged
and compiled models.
"""

from __future__ import annotations

import argparse
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from sharedattn.backbones import build
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec, NetworkSpec
from sharedattn.search.cli.main import main
from sharedattn.weights.pretrained import load_pretrained

TEXT = "vit(depth=2,embed_dim=12,num_heads=2,patch_size=4,mlp_ratio=1,in_chans=1,num_classes=3)@16"
BACKBONE = BackboneSpec.parse(TEXT)
State = dict[str, Tensor]


def network(text: str = f"{TEXT}: V2", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build(NetworkSpec.parse(text))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return network()


def under(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": weight for name, weight in state.items()}


def optimizer(state: State) -> dict[str, Any]:
    """Of a real optimiser after a step: tensors below numbers."""
    weights = [nn.Parameter(w.clone()) for w in state.values() if w.is_floating_point()]
    made = torch.optim.AdamW(weights)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    made.step()
    return made.state_dict()


def lightning(state: State, prefix: str, **more: Any) -> dict[str, Any]:
    return {
        "epoch": 3,
        "global_step": 300,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": under(prefix, state),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"ready": 4}}}},
        "callbacks": {"ModelCheckpoint{}": {"best_model_score": torch.tensor(0.9)}},
        "optimizer_states": [optimizer(state)],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 1e-3, "class_weights": torch.ones(3)},
        **more,
    }


def averaged(state: State) -> State:
    module = network()
    module.load_state_dict(state)
    return AveragedModel(module).state_dict()


def with_wrapped_blocks(state: State) -> State:
    return {name.replace("blocks.1.", "blocks.1._orig_mod."): w for name, w in state.items()}


FORMS: dict[str, Callable[[State], Any]] = {
    "plain": lambda s: s,
    "ordered": OrderedDict,
    **{
        key: lambda s, key=key: {key: s, "epoch": 3, "optimizer": optimizer(s)}
        for key in ("model", "state_dict", "model_state_dict", "net", "network", "params")
    },
    "a key of its own": lambda s: {"my student": s, "scaler": {}},
    "beside a best accuracy": lambda s: {"model_state_dict": s, "best": torch.tensor(81.2)},
    "timm's": lambda s: {
        "epoch": 3,
        "arch": "vit",
        "state_dict": s,
        "optimizer": optimizer(s),
        "args": argparse.Namespace(lr=0.1),
        "amp_scaler": {"scale": 65536.0},
    },
    "two levels": lambda s: {"checkpoint": {"model": s, "optimizer": optimizer(s)}},
    **{
        prefix: lambda s, prefix=prefix: under(prefix, s)
        for prefix in (
            "module.",
            "net.",
            "network.",
            "model.",
            "backbone.",
            "encoder.",
            "_orig_mod.",
            "module._orig_mod.",
            "_orig_mod.module.",
            "model._orig_mod.module.net.",
        )
    },
    "below a key and a prefix": lambda s: {"model_state_dict": under("module.net.", s)},
    "Lightning": lambda s: lightning(s, "model."),
    "Lightning, compiled": lambda s: lightning(s, "net._orig_mod."),
    "blocks compiled one by one": with_wrapped_blocks,
    "torch's averaged model": averaged,
    "beside a loss": lambda s: under("model.", s) | {"criterion.weight": torch.ones(3)},
    "a head beside its encoder": lambda s: {
        name if name.startswith("head") else f"encoder.{name}": weight
        for name, weight in s.items()
    },
    "beside a discriminator": lambda s: {
        "generator": s,
        "discriminator": {"conv.weight": torch.ones(2)},
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_holds_the_same_weights(form: str, model: nn.Module, tmp_path: Path) -> None:
    state = model.state_dict()
    path = tmp_path / "checkpoint.pth"
    torch.save(FORMS[form](dict(state)), path)
    read = load_pretrained(path, BACKBONE)
    assert list(read) == list(state)
    assert all(torch.equal(read[name], weight) for name, weight in state.items())


@pytest.mark.parametrize("name", ["weights.safetensors", "pytorch_model.bin"])
def test_safetensors_whatever_the_file_is_called(
    name: str, model: nn.Module, tmp_path: Path
) -> None:
    state = model.state_dict()
    save_file(under("module.net.", state), tmp_path / name)
    read = load_pretrained(tmp_path / name, BACKBONE)
    assert all(torch.equal(read[name], weight) for name, weight in state.items())


@pytest.mark.parametrize(
    "keys",
    [
        ("model_ema", "model"),
        ("state_dict_ema", "state_dict"),
        ("ema_state_dict", "model_state_dict"),
        ("model_state_dict_ema", "net"),
        ("ema.module", "network.module"),
    ],
)
def test_averaged_weights_come_first(keys: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    content: dict[str, Any] = {"epoch": 3}
    for seed, key in enumerate(keys):
        outer, _, prefix = key.partition(".")
        content[outer] = under(f"{prefix}." if prefix else "", network(seed=seed).state_dict())
    torch.save(content, path)
    expected = network(seed=0).state_dict()
    read = load_pretrained(path, BACKBONE)
    assert all(torch.equal(read[name], weight) for name, weight in expected.items())


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (lambda s: {"student": s, "teacher": s}, "'student', 'teacher'"),
        (lambda s: under("student.", s) | under("teacher.", s), "'student', 'teacher'"),
        (
            lambda s: {"a": s, "b_ema": s, "c": under("net.", s)},
            "'a', 'b_ema', 'c.net'",
        ),
    ],
)
def test_several_that_fit_are_named(
    content: Callable[[State], Any], named: str, model: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save(content(dict(model.state_dict())), path)
    with pytest.raises(InputError, match=f"nothing says which is meant: {named}; save the one"):
        load_pretrained(path, BACKBONE)


class Wrapped(nn.Module):
    """A model of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(2, 2)


class Executed:
    """What would be called when a file of it is read with trust."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("executed",)


def script(path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)


def save(content: object) -> Callable[[Path], None]:
    return lambda path: torch.save(content, path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (save(Wrapped()), r"objects of .*Wrapped.* and not weights alone; nothing .* executed"),
        (save({"model": Wrapped()}), r"torch.save\(model.state_dict\(\), FILE\)"),
        (save({"a": Executed(), "model": {}}), "objects of builtins.print"),
        (save({"model": {"a": torch.ones(1)}, "best": np.float64(1)}), "objects of numpy"),
        (lambda path: path.write_bytes(pickle.dumps({"a": np.ones(3)})), "cannot be read"),
        (script, "cannot be read"),
        (save([]), "holds 'list' and no state dict"),
        (save({"model": {}, "epoch": 1}), "holds 'model', 'epoch' and no state dict"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_bytes(b"\x00" * 64), "cannot be read"),
        (lambda path: path.write_text('12345678{"a": 1}'), "cannot be read"),
    ],
)
def test_files_without_weights(
    write: Callable[[Path], None],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "model.pth"
    write(path)
    with pytest.raises(InputError, match=message) as error:
        load_pretrained(path, BACKBONE)
    assert "executed" not in capsys.readouterr().out
    # torch's own text advises to read the file with trust.
    assert "weights_only" not in str(error.value).replace("weights_only=True", "")


def changed(state: State, *, without: str = "", add: str = "") -> State:
    kept = {name: weight for name, weight in state.items() if name != without}
    return kept | ({add: torch.ones(1)} if add else {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            lambda s: under("net.", changed(s, without="head.bias")),
            r"has 31 of the 32 tensors .*, missing head.bias; it is a model .* other parts",
        ),
        (
            lambda s: {"net": changed(s, add="head_dist.weight")},
            "unexpected head_dist.weight; it is a model of another depth, or with other parts",
        ),
        (
            lambda s: {f"a{i}.b": weight for i, weight in enumerate(s.values())},
            "has 0 of .* missing cls_token, .* unexpected a0.b, .* no family that is known here",
        ),
        (
            lambda _: network(
                "swin(depths=1-1,embed_dim=4,num_heads=1-1,patch_size=4,window_size=2-2): V1|V1"
            ).state_dict(),
            "it is a model of another family, swin; name a backbone of that",
        ),
        (
            lambda _: under(
                "module.",
                dict(network("pvt_v2_b0(num_classes=3): V2|V2|V2|V2").state_dict()),
            ),
            "another family, pvt_v2;",
        ),
        (
            lambda s: {name: weight * float("nan") for name, weight in s.items()},
            r"not finite \(NaN or infinity\) in cls_token",
        ),
    ],
)
def test_what_does_not_fit_is_said_as_it_is(
    content: Callable[[State], Any], message: str, model: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "model.pth"
    torch.save(content(dict(model.state_dict())), path)
    with pytest.raises(InputError, match=message):
        load_pretrained(path, BACKBONE)


def test_a_folder_of_weights_that_is_no_export(model: nn.Module, tmp_path: Path) -> None:
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"no config.yaml; name the file .*model.safetensors"):
        load_pretrained(tmp_path, BACKBONE)


SPACE = f"""\
name: small
backbone: {TEXT.replace("num_classes=3", "num_classes=2")}
order: any
stages:
  - {{depth: 1..2, counts: {{V: 0..2, N: 0..1}}}}
"""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (save(Wrapped()), "and not weights alone"),
        (save({"student": {"a": torch.ones(1)}, "teacher": {"a": torch.ones(1)}}), "'student'"),
        (save({"epoch": 1}), "no state dict"),
    ],
)
def test_a_search_from_such_a_file_ends_before_it_begins(
    content: Callable[[Path], None],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    space, weights, out = (tmp_path / name for name in ("space.yaml", "weights.pth", "out"))
    space.write_text(SPACE)
    content(weights)
    arguments = ["search", str(space), "--evaluator", "supernet", "--weights", str(weights)]
    assert main([*arguments, "--out", str(out), "--trials", "2"]) == 2
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors
    assert not out.exists()
