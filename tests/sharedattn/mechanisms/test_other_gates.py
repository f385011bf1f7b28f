"""ECA, CBAM, GC, SRM and SGE: by their equations, by timm, their counts, texts and refusals."""

from __future__ import annotations

import pytest
import torch
from timm.layers.cbam import CbamModule
from timm.layers.eca import EcaModule
from timm.layers.global_context import GlobalContext
from torch import Tensor, nn
from torch.nn import functional as F

from sharedattn.backbones import build, describe, resolve
from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.mechanisms import cbam, eca, global_context, sge, srm
from sharedattn.mechanisms.cbam import CBAM_GATE
from sharedattn.mechanisms.eca import ECA_GATE
from sharedattn.mechanisms.global_context import GC_GATE
from sharedattn.mechanisms.interface import Gate, GateCall, GateResult
from sharedattn.mechanisms.sge import SGE_GATE
from sharedattn.mechanisms.srm import SRM_GATE
from sharedattn.placement import BackboneSpec, MechanismOptions, NetworkSpec, Placement
from sharedattn.testing import check_mechanism
from sharedattn.testing.tiny_backbones import TINY, tiny_backbone

B, D, Y, X = 3, 22, 5, 7
GATES: dict[str, Gate] = {
    gate.name: gate for gate in (ECA_GATE, CBAM_GATE, GC_GATE, SRM_GATE, SGE_GATE)
}
OPTIONS = MechanismOptions(cbam_reduction=5, gc_reduction=5, sge_groups=2)
NARROW = "cbam_reduction=3,gc_reduction=3,sge_groups=2"
"""Options that fit the narrow stages of tiny backbones."""


def stage_of_22_channels():
    backbone = "resnet_cifar(depths=1-1,in_chans=2,stem_width=5,widths=11-22)@13"
    return describe(BackboneSpec.parse(backbone)).stages[1]


def parts(gate: Gate, options: MechanismOptions = OPTIONS) -> tuple[nn.Module, nn.Module | None]:
    """A cell and a site in float64 and eval mode, with random weights and statistics."""
    stage = stage_of_22_channels()
    cell, site = gate.make_cell(stage, options).double(), gate.make_site(stage, options)
    for parameter in cell.parameters():
        nn.init.normal_(parameter, std=0.5)
    for module in (cell, site):
        for name, buffer in () if module is None else module.named_buffers():
            if name.endswith(("mean", "var")):
                buffer.data = torch.rand_like(buffer, dtype=torch.float64) + 0.5
    return cell.eval(), None if site is None else site.eval()


def gated(gate: Gate, cell: nn.Module, site: nn.Module | None, x_BDYX: Tensor) -> GateResult:
    call = GateCall(
        x_BDP=x_BDYX.flatten(2),
        num_left_out=0,
        grid=(x_BDYX.shape[2], x_BDYX.shape[3]),
        cell=cell,
        site=site,
        carried=None,
    )
    return gate.run(call)


def expected(name: str, cell: nn.Module, site: nn.Module | None, x: Tensor) -> Tensor:
    """The gated maps, by timm's modules or by the papers' equations in other words."""
    weights = dict(cell.state_dict())
    if name == "eca":
        module: nn.Module = EcaModule(D)
    elif name == "gc":
        module = GlobalContext(D, rd_channels=4)
    elif name == "cbam":
        module = CbamModule(D, rd_channels=4)
        assert site is not None
        named = {f"spatial.conv.bn.{leaf}": value for leaf, value in site.state_dict().items()}
        weights |= named
    if name in ("eca", "gc", "cbam"):
        module = module.double().eval()
        module.load_state_dict(weights)
        return module(x)
    out = torch.empty_like(x)
    if name == "srm":
        assert site is not None
        for d in range(D):
            for b in range(B):
                pixels = x[b, d].flatten()
                mean = pixels.sum() / len(pixels)
                deviation = (((pixels - mean) ** 2).sum() / (len(pixels) - 1) + 1e-5) ** 0.5
                z = weights["weight"][d, 0] * mean + weights["weight"][d, 1] * deviation
                z = (z - site.running_mean[d]) / (site.running_var[d] + 1e-5) ** 0.5
                z = z * weights["norm.weight"][d] + weights["norm.bias"][d]
                out[b, d] = x[b, d] / (1 + (-z).exp())
        return out
    for b in range(B):
        for g in range(2):
            group = x[b, 11 * g : 11 * g + 11]
            mean = group.flatten(1).mean(1)
            t = torch.einsum("kyx,k->yx", group, mean)
            t = (t - t.mean()) / (t.std() + 1e-5)
            gate = (weights["weight"][g] * t + weights["bias"][g]).sigmoid()
            out[b, 11 * g : 11 * g + 11] = group * gate
    return out


@pytest.mark.parametrize("name", GATES)
def test_the_gated_branch_is_that_of_timm_or_of_the_equations(name: str) -> None:
    cell, site = parts(GATES[name])
    x = torch.randn(B, D, Y, X, dtype=torch.float64)
    with torch.no_grad():
        result = gated(GATES[name], cell, site, x)
        out = expected(name, cell, site, x)
    # SGE departs from its published code in how it keeps a deviation of zero from dividing.
    rtol = 1e-3 if name == "sge" else 1e-9
    torch.testing.assert_close(result.x_BDP.view_as(x), out, rtol=rtol, atol=1e-12)
    # What is told of the gate is its mean over pixels.
    torch.testing.assert_close(result.gate_BD, (out / x).mean((2, 3)), rtol=rtol, atol=1e-12)
    assert result.left is None


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("eca", 3, 3 * 22),
        ("cbam", 2 * 22 * 4 + 98 + 2, 4 * 22 * 4 + 98 * 49 + 49),
        ("gc", 23 + 2 * 22 * 4 + 4 + 22 + 8, 2 * 49 * 22 + 2 * 22 * 4 + 20),
        ("srm", 4 * 22, 22),
        ("sge", 4, 0),
    ],
)
def test_params_and_macs_by_hand(name: str, params: int, macs: int) -> None:
    """On a stage of 22 channels and 7 x 7 pixels; the bottlenecks have 4 channels."""
    stage, gate = stage_of_22_channels(), GATES[name]
    assert stage.grid == (7, 7)
    assert gate.cell_params(stage, OPTIONS) == params
    assert gate.macs(stage, OPTIONS) == macs
    assert sum(p.numel() for p in gate.make_cell(stage, OPTIONS).parameters()) == params


def test_published_counts_at_64_channels() -> None:
    assert eca.params(64) == 3 and eca.params(256) == 5 and eca.params(2048) == 7
    assert cbam.params(64, 16) == 612
    assert global_context.params(64, 8) == 1_177
    assert srm.params(64) == 256
    assert sge.params(64) == 128


def test_the_kernel_of_eca_is_that_of_timm_for_every_width() -> None:
    for channels in (*range(1, 600), *range(2040, 2060), 4096, 8191, 8192, 32767, 32768):
        assert EcaModule(channels).conv.kernel_size == (eca.params(channels),)


def test_new_units() -> None:
    """SRM starts at one half; SGE at sigmoid(1), about 0.73, as F10 of its facts measures."""
    stage = stage_of_22_channels()
    x = torch.randn(B, D, Y, X)
    for name, start in (("srm", 0.5), ("sge", 1 / (1 + torch.tensor(-1.0).exp().item()))):
        gate = GATES[name]
        cell, site = gate.make_cell(stage, OPTIONS), gate.make_site(stage, OPTIONS)
        result = gated(gate, cell.train(), site, x)
        torch.testing.assert_close(result.gate_BD, torch.full((B, D), start))


@pytest.mark.parametrize("name", GATES)
def test_a_branch_of_zeros_has_finite_gradients(name: str) -> None:
    """The last norm of a residual block may start with a scale of zero."""
    cell, site = parts(GATES[name])
    x = torch.zeros(B, D, Y, X, dtype=torch.float64, requires_grad=True)
    gated(GATES[name], cell, site, x).x_BDP.sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in cell.parameters())


@pytest.mark.parametrize("code", GATES)
def test_text(code: str) -> None:
    letter = {"eca": "e", "cbam": "b", "gc": "g", "srm": "m", "sge": "p"}[code]
    texts = {
        f"V3/{code}": f"V/{letter}0,V/{letter}1,V/{letter}2",
        f"V3/{code}1": f"V/{letter}0,V/{letter}0,V/{letter}0",
        f"V3/{code}2": f"V/{letter}0,V/{letter}0,V/{letter}1",
    }
    for text, layers in texts.items():
        placement = Placement.parse(text)
        assert placement == Placement.parse(layers)
        assert str(placement) == text
        assert Placement.from_json(placement.to_json()) == placement
    masked = Placement.parse(f"V4/{code}1[1011]")
    assert masked == Placement.parse(f"V/{letter}0,V,V/{letter}0,V/{letter}0")


@pytest.mark.parametrize(
    ("family", "name"),
    [(f, name) for f in TINY for name in GATES if name != "cbam" or f.startswith("resnet")],
)
def test_the_contract_on_every_family(
    family: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sharedattn.testing.mechanisms.tiny_backbone", lambda n: tiny_backbone(n, NARROW)
    )
    num = 5 if family.startswith("resnet") else 2
    check_mechanism(GATES[name], backbones=(family,), num_placements=num)


def test_the_contract_refuses_a_parameter_declared_without_the_effect_that_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "sharedattn.testing.mechanisms.tiny_backbone", lambda n: tiny_backbone(n, NARROW)
    )
    monkeypatch.setattr(type(GC_GATE), "parameters_without_effect", {"conv_attn.weight"})
    with pytest.raises(AssertionError, match="conv_attn.weight of GC unit has an effect"):
        check_mechanism(GC_GATE, backbones=("vit",), num_placements=2)


@pytest.mark.parametrize("name", ["gc", "srm", "sge"])
def test_prefix_tokens_may_be_left_out_of_means(name: str) -> None:
    """They are gated like all, by what the others give."""
    gate = GATES[name]
    cell, site = parts(gate)
    x_BDN = torch.randn(B, D, 11, dtype=torch.float64)

    def run(x_BDP: Tensor, num_left_out: int) -> GateResult:
        call = GateCall(
            x_BDP=x_BDP,
            num_left_out=num_left_out,
            grid=None,
            cell=cell,
            site=site,
            carried=None,
        )
        return gate.run(call)

    with torch.no_grad():
        whole, rest = run(x_BDN, 2), run(x_BDN[:, :, 2:], 0)
        torch.testing.assert_close(whole.x_BDP[:, :, 2:], rest.x_BDP)
        other = torch.cat([torch.randn_like(x_BDN[:, :, :2]), x_BDN[:, :, 2:]], 2)
        torch.testing.assert_close(run(other, 2).x_BDP[:, :, 2:], rest.x_BDP)
        assert not torch.allclose(run(other, 0).x_BDP[:, :, 2:], run(x_BDN, 0).x_BDP[:, :, 2:])


def test_macs_of_gc_count_the_tokens_of_the_mean() -> None:
    text = "vit(class_token=true,depth=2,embed_dim=14,gc_reduction=3,mlp_ratio=1,num_heads=2,"
    text += "patch_size=4{})@16: V2{}"
    found = {
        left_out: CostModel(spec.backbone).cost(spec.placement).mechanisms["gc"].macs
        for left_out in ("", ",class_token_in_mean=false")
        for spec in [resolve(NetworkSpec.parse(text.format(left_out, "/gc")))]
    }
    assert found[""] - found[",class_token_in_mean=false"] == 2 * 2 * 14


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vit(depth=2,embed_dim=14,num_heads=2,patch_size=4)@16: V2/cbam", "write /eca, /gc, /se"),
        ("resnet_cifar(sge_groups=64): V3 | V3/sge | V3", "32 channels; the nearest that does is"),
        ("resnet20_cifar(sge_groups=24): V3/sge | V3 | V3", "nearest that does is sge_groups=16"),
        ("resnet20_cifar(cbam_reduction=17): V3/cbam1 | V3 | V3", "most that fits is cbam_reduc"),
        ("resnet20_cifar: V3/gc | V3 | V3", "most that fits is gc_reduction=8"),
        ("resnet20_cifar(bn=each): V3/srm | V3 | V3", "`bn` is one of per_site, shared"),
        ("resnet20_cifar(sge_groups=0): V3/sge | V3 | V3", "`sge_groups` is 0; it is a whole"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(NetworkSpec.parse(text))


def test_a_stage_of_one_pixel_has_no_deviation() -> None:
    backbone = "resnet_cifar(depths=1-1,in_chans=1,sge_groups=1,stem_width=3,widths=5-7)@2"
    for code in ("srm", "sge"):
        with pytest.raises(InputError, match="stage has one; write /se or /eca there"):
            resolve(NetworkSpec.parse(f"{backbone}: V1 | V1/{code}"))


def test_options_are_stored_only_if_they_are_changed_and_used() -> None:
    changed = "bn=shared,cbam_reduction=3,gc_reduction=3,sge_groups=2"
    names = {"bn", "cbam_reduction", "gc_reduction", "sge_groups"}
    assert not names & MechanismOptions().to_json().keys()
    used = {"eca": set(), "gc": {"gc_reduction"}, "srm": {"bn"}, "sge": {"sge_groups"}}
    used["cbam"] = {"bn", "cbam_reduction"}
    for name, expected_names in used.items():
        spec = resolve(NetworkSpec.parse(f"resnet20_cifar({changed}): V3/{name} | V3 | V3"))
        assert spec.backbone.options.changed().keys() == expected_names


def test_gates_are_of_one_image() -> None:
    """In eval mode no image's gate depends on the others of its batch."""
    text = (
        f"resnet_cifar(depths=2-1,in_chans=1,num_classes=3,{NARROW},widths=14-22)@8: V2/{{}} | V1"
    )
    x = torch.randn(B, 1, 8, 8)
    for name in GATES:
        network = build(NetworkSpec.parse(text.format(name + "1"))).eval()
        with torch.no_grad():
            torch.testing.assert_close(network(x)[1:2], network(x[1:2]), rtol=1e-4, atol=1e-5)
            assert F.softmax(network(x), 1).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("num_left_out", [0, 3])
def test_means_are_those_of_torch_in_every_precision(
    num_left_out: int, dtype: torch.dtype
) -> None:
    """In half precision, where 1,009 values of 100 and more have a sum beyond its range."""
    x_BDP = (torch.rand(B, D, 1_009) * 10 + 100).to(dtype)
    call = GateCall(
        x_BDP=x_BDP, num_left_out=num_left_out, grid=None, cell=None, site=None, carried=None
    )
    assert call.mean.dtype == dtype
    assert torch.equal(call.mean, x_BDP[:, :, num_left_out:].mean(2))
