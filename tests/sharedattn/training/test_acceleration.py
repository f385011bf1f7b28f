"""Options that make training faster: what each does on a CPU, and where it is refused."""

import shutil
from dataclasses import replace

import pytest
import torch
from shades import RECIPE, SPEC, Shades
from torch import nn
from torch.overrides import TorchFunctionMode

from sharedattn.backbones import build, resolve
from sharedattn.errors import InputError
from sharedattn.networks import network as networks
from sharedattn.placement import Envelope, NetworkSpec, Placement
from sharedattn.recipe import Recipe
from sharedattn.supernet.trainer import SupernetRecipe, SupernetTrainer, supernet_network
from sharedattn.training.acceleration import (
    check_compiler,
    training_settings,
    update_products,
)
from sharedattn.training.trainer import Trainer, check_recipe, train


def losses(recipe):
    return [epoch.train_loss for epoch in train(SPEC, Shades(), recipe, seed=0).curve]


@pytest.fixture
def graphs(monkeypatch):
    """What torch.compile is given, which runs as it is."""
    compiled = []

    def keep(graph, inputs):
        compiled.append(graph)
        return graph.forward

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: real(function, backend=keep))
    torch.compiler.reset()
    networks._compiled_run.cache_clear()
    yield compiled
    torch.compiler.reset()
    networks._compiled_run.cache_clear()


@pytest.mark.parametrize(
    "changes",
    [
        {"channels_last": True},
        {"fused_optimizer": True},
        {"fused_optimizer": True, "optimizer": "sgd"},
        {"tf32": True},
    ],
)
def test_on_a_cpu_results_are_equal_up_to_rounding(changes):
    plain = replace(RECIPE, **{k: v for k, v in changes.items() if v is not True})
    assert losses(replace(RECIPE, **changes)) == pytest.approx(losses(plain), rel=1e-5)


def test_channels_come_last_in_training_alone(monkeypatch):
    spec = resolve(NetworkSpec.parse(str(SPEC).replace("in_chans=1", "in_chans=2")))
    layouts = []

    class TwoChannels(Shades):
        in_chans = 2

        def draw(self, count, seed):
            images, labels = super().draw(count, seed)
            return images.repeat(1, 2, 1, 1), labels

    trainer = Trainer(spec, TwoChannels(), replace(RECIPE, epochs=1, channels_last=True), seed=0)

    def look(module, inputs, output):
        if torch.is_grad_enabled():
            layouts.append((inputs[0].stride(), module.weight.stride()))

    convolution = next(m for m in trainer.network.modules() if isinstance(m, nn.Conv2d))
    convolution.register_forward_hook(look)
    trainer.run_epoch()
    # (B, 2, 6, 6) and (10, 2, 2, 2): a step along the channels is one number.
    assert set(layouts) == {((72, 1, 12, 2), (8, 1, 4, 2))}
    state = trainer.result().network.state_dict()
    assert all(tensor.is_contiguous() for tensor in state.values())


def test_tf32_is_set_for_the_training_alone():
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    with pytest.raises(ArithmeticError), training_settings(replace(RECIPE, tf32=True)):
        assert products.fp32_precision == "tf32"
        raise ArithmeticError
    assert products.fp32_precision == before
    with training_settings(RECIPE):
        assert products.fp32_precision == before


@pytest.mark.parametrize("optimizer", ["muon", "lamb"])
def test_an_optimiser_without_fused_kernels_is_refused(optimizer):
    recipe = replace(RECIPE, fused_optimizer=True, optimizer=optimizer)
    rule = f"but timm refuses `optimizer` '{optimizer}' with `fused`: .*; choose adamw or sgd"
    for refuse in (check_recipe, lambda *arguments: train(*arguments, seed=0)):
        with pytest.raises(InputError, match=rule):
            refuse(SPEC, Shades(), recipe)


def test_a_recipe_with_fused_kernels_passes_its_check():
    recipe = replace(RECIPE, fused_optimizer=True)
    check_recipe(SPEC, Shades(), recipe)
    trainer = Trainer(SPEC, Shades(), recipe, seed=0)
    assert all(group["fused"] is True for group in trainer._optimizer.param_groups)
    with pytest.raises(InputError, match="`optimizer_options` has `fused` as well"):
        replace(recipe, optimizer_options=(("fused", False),))


def test_a_placements_network_is_compiled_whole(graphs):
    assert losses(replace(RECIPE, compile=True)) == losses(RECIPE)
    assert len(graphs) == 1


def test_with_activation_checkpointing_layers_are_compiled(graphs):
    recipe = replace(RECIPE, grad_checkpointing=True)
    assert losses(replace(recipe, compile=True)) == losses(recipe)
    # V, and L with a gate and broadcasting.
    assert len(graphs) == 2


class Drawn:
    def sample(self, rng):
        return rng.choice([Placement.parse(text) for text in ("E1V1", "V1L1", "N1V1/cb")])


def supernet_losses(compile):
    placements = [Placement.parse(text) for text in ("V2", "V1", "E1V1", "V1L1", "N1V1/cb")]
    recipe = SupernetRecipe(training=replace(RECIPE, compile=compile))
    trainer = SupernetTrainer(
        supernet_network(SPEC.backbone, Envelope.of(*placements), recipe, seed=0),
        Shades(),
        recipe,
        largest=placements[0],
        smallest=placements[1],
        sampler=Drawn(),
        seed=0,
    )
    while not trainer.finished:
        trainer.run_epoch()
    return [epoch.train_loss for epoch in trainer.curve]


def test_a_supernet_is_compiled_by_kinds_of_layers(graphs):
    plain = supernet_losses(False)
    assert not graphs
    assert supernet_losses(True) == plain
    first = len(graphs)
    assert 0 < first < 5 * 2 * 3
    # Another supernet of the same space compiles nothing.
    assert supernet_losses(True) == plain
    assert len(graphs) == first


def test_evaluations_are_not_compiled(graphs):
    network = build(SPEC).eval()
    network.compile_layers = True
    images, _ = Shades().draw(3, 5)
    with torch.inference_mode():
        network(images)
    assert not graphs
    with training_settings(replace(RECIPE, compile=True)):
        network(images)
    assert len(graphs) == 2


def test_a_machine_without_a_compiler_is_told_so_before_training(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    rule = "requires a C\\+\\+ compiler on a CPU, but there is no no-such-compiler; install one"
    with pytest.raises(InputError, match=rule):
        train(SPEC, Shades(), Recipe(epochs=1, batch_size=7, compile=True), seed=0)
    monkeypatch.setattr("sharedattn.training.acceleration.find_spec", lambda name: None)
    with pytest.raises(InputError, match="requires Triton on a GPU"):
        check_compiler(torch.device("cuda"))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    check_compiler(torch.device("cpu"))


@pytest.mark.parametrize("shape", [(37, 53), (3, 41, 37)])
def test_products_of_bfloat16_are_those_of_torch_but_for_the_order_of_sums(monkeypatch, shape):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    one, other = (torch.randn(shape).bfloat16() for _ in range(2))
    product = torch.addmm if len(shape) == 2 else torch.baddbmm
    square = one @ one.mT
    expected = product(square, one, other.mT, beta=0.5, alpha=-2.0)
    with update_products([torch.zeros(32, 4, 8)]):
        found = product(square, one, other.mT, beta=0.5, alpha=-2.0)
        out = torch.empty_like(square)
        assert product(square, one, other.mT, beta=0.5, alpha=-2.0, out=out) is out
    assert found.dtype == torch.bfloat16 and torch.equal(found, out)
    torch.testing.assert_close(found, expected, rtol=2**-7, atol=2**-5)
    exact = 0.5 * square.double() - 2.0 * one.double() @ other.double().mT
    assert ((found.double() - exact).abs() <= 2**-8 * exact.abs() + 1e-4).all()


@pytest.mark.parametrize(
    ("capability", "shape", "is_replaced"),
    [
        ("AVX512", (61, 67), False),
        ("AVX2", (61, 67), True),
        ("AVX2", (31, 67), False),
        ("AVX2", (61, 3, 3), False),
        ("AVX2", (61, 5, 7), True),
        ("AVX2", (61,), False),
        ("AVX2", (61, 0), False),
    ],
)
def test_only_large_updates_of_slow_processors_are_replaced(
    monkeypatch, capability, shape, is_replaced
):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    context = update_products([torch.zeros(3, 5), torch.zeros(shape)])
    assert isinstance(context, TorchFunctionMode) == is_replaced
    on_another_device = update_products([torch.zeros(shape, device="meta")])
    assert not isinstance(on_another_device, TorchFunctionMode)
