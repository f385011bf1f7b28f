"""One network for many placements: re-entrant, resumable, and each weight where it belongs."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sharedattn.backbones import build, build_network
from sharedattn.errors import InputError
from sharedattn.mechanisms.broadcasting import broadcast_context
from sharedattn.mechanisms.less import diagonality
from sharedattn.networks.network import Network, NetworkPlan
from sharedattn.networks.state import State
from sharedattn.placement import (
    BackboneSpec,
    Envelope,
    GateCell,
    LayerChoice,
    MechanismOptions,
    NetworkSpec,
    Placement,
)
from sharedattn.weights.extract import extract

RandomPlacement = Callable[[random.Random, int], Placement]

FIRST = Placement.parse("V,L/d0/cb,E/s7/d0,L/cb,N/d1/cb")
SECOND = Placement.parse("E/s5/d0,V/d1,V/cb,L/d1")


def randomised(network: Network) -> Network:
    """The network in float64 with weights that make every part matter."""
    network = network.double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


def images(backbone: BackboneSpec, batch_size: int = 3) -> Tensor:
    size = backbone.image_size
    return torch.randn(batch_size, backbone.in_chans, size, size, dtype=torch.float64)


@pytest.fixture
def supernet(tiny: BackboneSpec) -> Network:
    return randomised(build_network(tiny, Envelope.of(FIRST, SECOND))).eval()


def test_two_interleaved_forwards_agree_with_separate_ones(supernet: Network) -> None:
    placements = (FIRST, SECOND)
    batches = [images(supernet.backbone, 2), images(supernet.backbone, 3)]
    alone = [supernet(x, p) for x, p in zip(batches, placements, strict=True)]
    runs = [supernet.begin(x) for x in batches]
    for index in range(5):
        for i, placement in enumerate(placements):
            if index < placement.depths[0]:
                runs[i] = supernet.layer(0, index).run(*runs[i], placement.layers[index])
    for (tokens, _), logits in zip(runs, alone, strict=True):
        assert torch.equal(supernet.finish(tokens), logits)
    assert not torch.equal(alone[0], supernet(batches[0], SECOND))


def cells_of(state: State) -> list[int]:
    """The DIA cells of which a state holds something."""
    return [cell for name, cell in state.values if name == "dia"]


def test_a_run_can_be_resumed_from_any_prefix(supernet: Network) -> None:
    x = images(supernet.backbone)
    for prefix in range(1, 5):
        tokens, state = supernet.begin(x)
        for index in range(prefix):
            tokens, state = supernet.layer(0, index).run(tokens, state, FIRST.layers[index])
        other = Placement((FIRST.layers[:prefix],))
        assert torch.equal(supernet.finish(tokens), supernet(x, other))
        for index in range(prefix, 5):
            tokens, state = supernet.layer(0, index).run(tokens, state, FIRST.layers[index])
        assert torch.equal(supernet.finish(tokens), supernet(x, FIRST))


def test_a_started_layer_serves_every_cb_and_dia(supernet: Network) -> None:
    tokens, state = supernet.layer(0, 0).run(
        *supernet.begin(images(supernet.backbone)), FIRST.layers[0]
    )
    started = supernet.layer(0, 1).start(tokens, state, FIRST.layers[1])
    for dia, cb in itertools.product((None, 0), (False, True)):
        choice = replace(
            FIRST.layers[1], gate=None if dia is None else GateCell("dia", dia), cb=cb
        )
        own, own_state = supernet.layer(0, 1).complete(started, choice)
        whole, whole_state = supernet.layer(0, 1).run(tokens, state, choice)
        assert torch.equal(own, whole)
        assert cells_of(own_state) == cells_of(whole_state) == ([] if dia is None else [dia])
    assert cells_of(started.state) == []


def test_a_state_holds_what_later_layers_take(supernet: Network) -> None:
    held = [supernet.held_after(0, FIRST.stages[0], index) for index in range(5)]
    assert [[g for n, g in sorted(h.keys) if n == "scores"] for h in held] == [[0]] * 3 + [[]] * 2
    cells = [[cell for name, cell in sorted(h.keys) if name == "dia"] for h in held]
    assert cells == [[0, 1], [0, 1], [1], [1], []]
    assert not any(h.residual for h in held)
    assert held[1] | held[3] == held[0]
    tokens, state = supernet.begin(images(supernet.backbone))
    for index, choice in enumerate(FIRST.layers[:3]):
        tokens, state = supernet.layer(0, index).run(tokens, state, choice)
    kept = state.keeping(held[2])
    assert cells_of(state) == [0] and cells_of(kept) == []
    assert kept.values["scores", 0] is state.values["scores", 0]
    assert ("scores", 0) not in state.keeping(held[3]).values


def test_a_run_leaves_nothing_on_modules(supernet: Network) -> None:
    def held() -> list[dict[str, int]]:
        return [{k: id(v) for k, v in vars(m).items()} for m in supernet.modules()]

    before = held()
    supernet.run(images(supernet.backbone), FIRST, collect={"attention", "gates", "diagonality"})
    assert held() == before


def test_a_state_is_a_value() -> None:
    h_c = (torch.zeros(1), torch.ones(1))
    state = State()
    later = state.with_values({("dia", 1): h_c})
    assert state.values == {} and later.values == {("dia", 1): h_c}
    with pytest.raises(AttributeError, match="cannot assign"):
        later.values = h_c


class TwoStages(Network):
    """A network of two stages that notes how each of its layers is entered."""

    def __init__(self, one_stage: Network, placement: Placement) -> None:
        shape = replace(one_stage.shape, stages=one_stage.shape.stages * 2)
        envelope = Envelope.of(placement)
        super().__init__(NetworkPlan(backbone=one_stage.backbone, envelope=envelope, shape=shape))
        self.entered: list[tuple[int, int, State]] = []

    def embed_images(self, images_BCYX: Tensor) -> Tensor:
        return images_BCYX[:, 0, 0, :1]

    def enter_stage(self, stage: int, tokens: Tensor) -> Tensor:
        return tokens + 10 * stage

    def block(self, stage: int, index: int) -> Any:
        def run(tokens: Tensor, state: State, *_: object) -> tuple[Tensor, State]:
            self.entered.append((stage, index, state))
            return tokens + 1, state.with_values({("dia", 0): (tokens, tokens)})

        return run

    def classify(self, tokens: Tensor) -> Tensor:
        return tokens.sum(1)


def test_each_stage_starts_with_its_transition_and_an_empty_state(tiny: BackboneSpec) -> None:
    placement = Placement.parse("N2/dia1 | N2")
    network = TwoStages(build(NetworkSpec(tiny, Placement.parse("V1"))), placement)
    assert [list(cells) for cells in network.dia_cells] == [["0"], []]
    logits = network(torch.zeros(1, 1, 15, 15), placement)
    assert logits.item() == 2 + 10 + 2
    assert [(stage, index, cells_of(state)) for stage, index, state in network.entered] == [
        (0, 0, []),
        (0, 1, [0]),
        (1, 0, []),
        (1, 1, []),  # its stage calls no cell
    ]


def test_a_stand_alone_network_compiles_whole(tiny: BackboneSpec) -> None:
    network = randomised(build(NetworkSpec(tiny, FIRST))).eval()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    x = images(tiny)
    torch.testing.assert_close(compiled(x), network(x))


def test_a_network_of_one_placement_needs_not_be_told(tiny: BackboneSpec) -> None:
    network = randomised(build(NetworkSpec(tiny, FIRST))).eval()
    x = images(tiny)
    assert torch.equal(network(x), network(x, FIRST))


@pytest.mark.parametrize(
    "texts", [("V1", "E1/s3"), ("V2/dia1", "V2/dia2"), ("V2", "V1"), ("V1", "V1/cb"), ("V2",)]
)
def test_a_network_of_several_placements_is_told_which(
    tiny: BackboneSpec, texts: tuple[str, str]
) -> None:
    network = build_network(tiny, Envelope.of(*map(Placement.parse, texts)))
    with pytest.raises(InputError, match="`placement` is missing.* pass placement="):
        network(images(tiny).float())


@pytest.mark.parametrize("text", ["V2", "V,V/cb", "E2/s7", "V1"])
def test_only_what_is_built_for_a_placement_has_one(tiny: BackboneSpec, text: str) -> None:
    placement = Placement.parse(text)
    alone = build(NetworkSpec(tiny, placement))
    assert alone.only_placement == placement
    # Each envelope is that of several placements: of fewer layers, of no context, of fewer slots.
    network = build_network(tiny, Envelope.of(placement))
    assert network.envelope == alone.envelope
    assert network.only_placement is None


def test_a_placement_that_the_backbone_cannot_carry_is_not_built(tiny: BackboneSpec) -> None:
    with pytest.raises(InputError, match="has a higher rank.*that fits is /lowrank10"):
        build(NetworkSpec(tiny, Placement.parse("V1L1/lowrank11")))
    with pytest.raises(InputError, match="stage 1 of V6 has 6 layers, more than the 5 of vit"):
        build(NetworkSpec(tiny, Placement.parse("V6")))


def test_a_placement_outside_the_envelope(supernet: Network) -> None:
    with pytest.raises(InputError, match="layer 1 of stage 1 .* outside the network's envelope"):
        supernet(images(supernet.backbone), Placement.parse("V1/cb"))


def test_unknown_names_to_collect(supernet: Network) -> None:
    with pytest.raises(InputError, match="attention, diagonality, gates, but got 'maps'"):
        supernet.run(images(supernet.backbone), FIRST, collect={"maps", "gates"})


def test_what_a_run_collects(supernet: Network) -> None:
    x = images(supernet.backbone)
    plain = supernet.run(x, FIRST)
    assert plain.attention is plain.gates is plain.diagonality is None
    result = supernet.run(x, FIRST, collect={"attention", "gates", "diagonality"})
    torch.testing.assert_close(result.logits, plain.logits)
    torch.testing.assert_close(supernet.finish(result.tokens), result.logits)
    shapes = [None if maps is None else tuple(maps.shape) for maps in result.attention]
    assert shapes == [(3, 2, 10, 10), (3, 2, 10, 10), (3, 1, 10, 7), (3, 2, 10, 10), None]
    for maps in result.attention[:4]:
        torch.testing.assert_close(maps.sum(-1), torch.ones_like(maps[..., 0]))
    gated = [None if gate is None else tuple(gate.shape) for gate in result.gates]
    assert gated == [None, (3, 22), (3, 22), None, (3, 22)]
    terms = [diagonality(result.attention[index]) for index in (1, 3)]
    torch.testing.assert_close(result.diagonality, sum(terms) / 2)
    alone = supernet.run(x, FIRST, collect={"diagonality"})
    assert alone.attention is None and torch.equal(alone.diagonality, result.diagonality)


def test_less_layers_chain_over_layers_that_make_no_scores(tiny: BackboneSpec) -> None:
    placement = Placement.parse("V1L1E1N1L1/s3")
    network = randomised(build(NetworkSpec(tiny, placement))).eval()
    x = images(tiny)
    maps = network.run(x, collect={"attention"}).attention
    _, state = network.layer(0, 0).run(*network.begin(x), placement.layers[0])
    q, k = state.values["scores", 0].q_BHNK, state.values["scores", 0].k_BHMK
    scores = q @ k.transpose(-2, -1) / (22 // 2) ** 0.5
    identity = torch.eye(10, dtype=torch.float64)
    for index in (1, 4):
        less = network.blocks[index].less
        scores = (less.psi + identity) @ scores @ (less.theta + identity).T
        torch.testing.assert_close(maps[index], scores.softmax(-1))


def test_the_diagonality_term_trains_the_token_maps(supernet: Network) -> None:
    term = supernet.run(images(supernet.backbone), FIRST, collect={"diagonality"}).diagonality
    term.backward()
    assert supernet.blocks[1].less.psi.grad.any() and supernet.blocks[3].less.theta.grad.any()


def test_without_less_attention_the_diagonality_term_is_zero(tiny: BackboneSpec) -> None:
    network = build(NetworkSpec(tiny, Placement.parse("V1E1/s3")))
    result = network.run(images(tiny).float(), collect={"diagonality"})
    assert result.diagonality.item() == 0 and result.diagonality.ndim == 0


def test_fused_and_explicit_attention_agree(tiny: BackboneSpec) -> None:
    fused = randomised(build(NetworkSpec(tiny, FIRST))).eval()
    explicit = build(NetworkSpec(tiny, FIRST), fused=False).double().eval()
    explicit.load_state_dict(fused.state_dict())
    x = images(tiny)
    torch.testing.assert_close(fused(x), explicit(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("V1", {"norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"}),
        ("E1/s3", {"norm1", "external.query", "external.proj", "external"} | {"norm2"}),
        ("N1/cb", {"norm2"}),
    ],
)
def test_a_layer_owns_what_its_choice_needs_alone(
    tiny: BackboneSpec, text: str, parts: set[str]
) -> None:
    network = build(NetworkSpec(tiny, Placement.parse(text)))
    owned = {name.rpartition(".")[0] for name, _ in network.blocks[0].named_parameters()}
    assert owned == parts | {"mlp.fc1", "mlp.fc2"}


def test_a_layer_of_less_attention_alone_owns_its_values(tiny: BackboneSpec) -> None:
    alone = build(NetworkSpec(tiny, Placement.parse("V1L1")))
    names = {name for name, _ in alone.blocks[1].named_parameters()}
    assert {"attn.v.weight", "attn.v.bias", "less.psi", "less.theta"} <= names
    assert not any("qkv" in name for name in names)
    shared = build_network(tiny, Envelope.of(*map(Placement.parse, ("V2", "V1L1"))))
    assert "attn.v.weight" not in dict(shared.blocks[1].named_parameters())


@pytest.mark.parametrize("in_mean", [True, False])
@pytest.mark.parametrize("form", ["plain", "scaled"])
def test_the_mlp_branch_goes_through_its_steps_in_order(
    tiny: BackboneSpec, in_mean: bool, form: str
) -> None:
    backbone = replace(
        tiny,
        keywords=(*tiny.keywords, ("init_values", 0.1), ("reg_tokens", 2)),
        options=MechanismOptions(class_token_in_mean=in_mean, broadcasting_form=form),
    )
    network = randomised(build(NetworkSpec(backbone, Placement.parse("N2/dia1/cb")))).eval()
    tokens, state = network.begin(images(backbone))
    h_c = None
    for index in range(2):
        block = network.blocks[index]
        branch = block.mlp(block.norm2(tokens))
        first = 0 if in_mean else 3
        if form == "plain":
            branch = broadcast_context(branch, first)
        else:
            mean = branch[:, first:].mean(1, keepdim=True)
            branch = (branch + block.broadcasting.scale * mean) / 2
        h_c = network.dia_cells[0]["0"](branch[:, first:].mean(1), h_c)
        branch = branch * h_c[0][:, None] * block.ls2.gamma
        expected = tokens + branch
        choice = LayerChoice.of("N", dia=0, cb=True)
        tokens, state = network.layer(0, index).run(tokens, state, choice)
        torch.testing.assert_close(tokens, expected)
        torch.testing.assert_close(state.values["dia", 0][1], h_c[1])


def test_the_dia_state_follows_the_undropped_branch(tiny: BackboneSpec) -> None:
    # Layer 1 has rate 0, layer 2 no attention branch: only its MLP branch can be dropped.
    backbone = replace(tiny, keywords=(*dict(tiny.keywords, depth=2).items(),))
    placement = Placement.parse("V1N1/dia1")
    network = randomised(build(NetworkSpec(backbone, placement), drop_path_rate=0.9))
    x = images(backbone, batch_size=23)
    kept = network.eval().run(x, collect={"gates"})
    dropped = network.train().run(x, collect={"gates"})
    assert torch.equal(dropped.gates[1], kept.gates[1])
    assert not torch.allclose(dropped.logits, kept.logits)


Gradients = dict[str, Tensor | None]


def trained(network: Network, x: Tensor, collect: set[str]) -> tuple[Tensor, Gradients, int]:
    """Logits and gradients of one step of a seeded run, and the bytes kept for its backward pass.

    Kept are what autograd saves, and what each checkpointed layer takes; each storage once, and
    weights are not counted.
    """
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def counted_checkpoint(run: Any, tokens: Tensor, state: State, **options: Any) -> Any:
        for tensor in (tokens, *state.tensors()):
            keep(tensor)
        return checkpoint(run, tokens, state, **options)

    torch.manual_seed(11)
    network.zero_grad()
    with (
        pytest.MonkeyPatch.context() as patch,
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        patch.setattr("sharedattn.networks.network.checkpoint", counted_checkpoint)
        result = network.run(x, FIRST, collect=collect)
    for weight in (*network.parameters(), x):
        kept.pop(weight.untyped_storage().data_ptr(), None)
    term = 0 if result.diagonality is None else result.diagonality
    (result.logits.square().sum() + term).backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    return result.logits.detach(), gradients, sum(kept.values())


@pytest.mark.parametrize("drop_path_rate", [0.0, 0.6])
@pytest.mark.parametrize("collect", [set(), {"diagonality", "gates"}])
def test_checkpointed_runs_are_equal_bit_for_bit_and_save_less(
    tiny: BackboneSpec, drop_path_rate: float, collect: set[str]
) -> None:
    envelope = Envelope.of(FIRST, SECOND)
    network = randomised(build_network(tiny, envelope, drop_path_rate=drop_path_rate))
    x = images(tiny, batch_size=13)
    logits, gradients, saved_bytes = trained(network, x, collect)
    network.grad_checkpointing = True
    again, same, fewer_bytes = trained(network, x, collect)
    assert torch.equal(again, logits)
    assert gradients.keys() == same.keys()
    for name, gradient in gradients.items():
        if gradient is None:
            assert same[name] is None, name
        else:
            assert torch.equal(same[name], gradient), name
    assert fewer_bytes < 0.3 * saved_bytes
    if drop_path_rate:
        assert not torch.equal(logits, network.eval()(x, FIRST))


@pytest.mark.parametrize(
    "text",
    [
        "deepvit(depth=2,embed_dim=14,num_heads=2,patch_size=5)@15: V1L1",
        "ceit(depth=2,embed_dim=14,num_heads=2,patch_size=1)@16: V2",
    ],
)
def test_a_checkpointed_run_counts_a_batch_once(text: str) -> None:
    network = build(NetworkSpec.parse(text)).double()
    fresh = {name: buffer.clone() for name, buffer in network.named_buffers()}
    assert any(name.endswith("running_var") for name in fresh)
    x = images(network.backbone, batch_size=7)
    counted, gradients = [], []
    for network.grad_checkpointing in (False, True):
        network.load_state_dict(fresh, strict=False)
        network.train().zero_grad()
        network(x).square().sum().backward()
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
        counted.append({name: buffer.clone() for name, buffer in network.named_buffers()})
    plain, checkpointed = counted
    for name, buffer in plain.items():
        assert torch.equal(checkpointed[name], buffer), name
        if name.endswith("running_mean"):
            assert not torch.equal(buffer, fresh[name]), name
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_checkpointed_run_records_once(supernet: Network) -> None:
    supernet.grad_checkpointing = True
    collect = {"attention", "gates", "diagonality"}
    result = supernet.run(images(supernet.backbone), FIRST, collect=collect)
    assert [maps is None for maps in result.attention] == [False] * 4 + [True]
    assert [gate is None for gate in result.gates] == [True, False, False, True, False]
    supernet.grad_checkpointing = False
    plain = supernet.run(images(supernet.backbone), FIRST, collect=collect)
    assert len(plain.attention) == len(result.attention)
    assert result.diagonality.requires_grad


def test_without_gradients_nothing_is_checkpointed(
    supernet: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sharedattn.networks.network.checkpoint", None)
    supernet.grad_checkpointing = True
    with torch.no_grad():
        assert supernet(images(supernet.backbone), FIRST).isfinite().all()


def with_fewer_keys(network: Network) -> Network:
    """The network, said to have 7 keys for its 10 queries."""
    [stage] = network.shape.stages
    attention = replace(stage.attention, num_keys=7)
    network.shape = replace(network.shape, stages=(replace(stage, attention=attention),))
    return network


def test_maps_without_a_diagonal_have_no_diagonality(tiny: BackboneSpec) -> None:
    network = with_fewer_keys(build(NetworkSpec(tiny, Placement.parse("V1L1/reuse"))))
    x = images(tiny).float()
    with pytest.raises(InputError, match="stage 1 has 10 queries and 7 keys; train with"):
        network.run(x, collect={"diagonality"})
    assert network.run(x, collect={"attention"}).attention[1] is not None
    vanilla = with_fewer_keys(build(NetworkSpec(tiny, Placement.parse("V2"))))
    assert vanilla.run(x, collect={"diagonality"}).diagonality.item() == 0


def without_gradient(placement: Placement, name: str, gradient: Tensor) -> Tensor:
    """Which entries of a parameter's gradient are zero, whatever the data.

    - Key bias: it adds q . b to all scores of a query, which softmax ignores; not so where a less
      layer maps the keys, with rows that do not sum to 1.
    - In an external layer the norm's shift, and in the multi-head form the query's and the key
      memory's bias, add a constant along tokens, which the softmax over tokens ignores.
    - A DIA cell's call with h = 0 does not see the hidden net's first weight, and one with c = 0
      does not see the forget gate; in a group of one block there is no other call.
    """
    zero = torch.zeros_like(gradient, dtype=torch.bool)
    D = 22
    layer = int(name.split(".")[1]) if name.startswith("blocks") else 0
    if placement.layers[layer].kind == "E":
        zero[:] = name.endswith(("norm1.bias", "query.bias", "memory_key.bias"))
    if name.endswith("attn.qkv.bias"):
        later = [c for c in placement.layers[layer + 1 :] if c.kind in "VL"]
        chain = itertools.takewhile(lambda c: c.kind == "L", later)
        zero[D : 2 * D] = all(c.option("form") == "reuse" for c in chain)
    if name.startswith("dia_cells"):
        _, _, cell, net = name.split(".", 3)
        if sum(c.cell_of("dia") == int(cell) for c in placement.layers) == 1:
            zero[:] = net == "hidden_net.0.weight"
            if net.split(".")[1] == "2":
                zero[D : 2 * D] = True
    return zero


@pytest.mark.parametrize(
    "options",
    [
        MechanismOptions(),
        MechanismOptions(external_expansion=2, broadcasting_form="scaled"),
    ],
)
def test_gradient_reaches_every_parameter_of_a_placement_and_no_other(
    tiny: BackboneSpec, random_placement: RandomPlacement, options: MechanismOptions
) -> None:
    rng = random.Random(5)
    placements = [FIRST, SECOND, *(random_placement(rng, 5) for _ in range(10))]
    backbone = replace(tiny, options=options)
    shared = randomised(build_network(backbone, Envelope.of(*placements)))
    for name, parameter in shared.named_parameters():
        if name.startswith("dia_cells") and name.endswith("net.0.bias"):
            nn.init.constant_(parameter, 9.0)  # no bottleneck whose ReLUs are all closed
    for placement in placements:
        shared.zero_grad()
        (shared(images(tiny), placement) ** 2).sum().backward()
        alone = extract(shared, placement)
        (alone(images(tiny)) ** 2).sum().backward()
        owned = dict(alone.named_parameters())
        for name, parameter in owned.items():
            zero = without_gradient(placement, name, parameter.grad)
            largest = parameter.grad.abs().max().item()
            assert parameter.grad[zero].abs().sum() < 1e-9, (str(placement), name)
            if not zero.all():
                assert largest > 1e-9, (str(placement), name)
            # Row by row: a joint map whose queries got nothing would pass as a whole.
            if name.endswith(("qkv.weight", "qkv.bias")):
                rows = parameter.grad.reshape(3, -1).abs().amax(1) > 1e-9
                assert rows.tolist() == [True, not zero.any(), True], (str(placement), name)
        for name, parameter in shared.named_parameters():
            reached = parameter.grad is not None and parameter.grad.abs().max() > 1e-9
            here = name in owned or name.replace(".qkv.", ".v.") in owned
            if reached:
                assert here, (str(placement), name)


def test_slots_and_rows_beyond_a_placement_get_no_gradient(tiny: BackboneSpec) -> None:
    placements = [Placement.parse(text) for text in ("V1E1/s7", "V1L1", "V2", "V1E1/s3")]
    network = randomised(build_network(tiny, Envelope.of(*placements)))
    network(images(tiny), placements[3]).sum().backward()
    for memory in (network.blocks[1].external.memory_key, network.blocks[1].external.memory_value):
        assert memory.grad[:3].abs().sum(1).all() and not memory.grad[3:].any()
    network.zero_grad()
    network(images(tiny), placements[1]).sum().backward()
    qkv = network.blocks[1].attn.qkv
    assert not qkv.weight.grad[:44].any() and qkv.weight.grad[44:].any()
