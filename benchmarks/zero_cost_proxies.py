"""Zero-cost proxies: figures of an untrained network that are said to rank trained ones.

Each is a function of one network and one batch, higher for better by its paper's word. Whether it
ranks a space at all is measured, not believed: params and MACs cost nothing either.

- `grad_norm`, `snip`: as Abdelfattah et al. 2021 (arXiv:2101.08134) collect them, the latter after
  Lee et al. 2019 (arXiv:1810.02340).
- `synflow`: Tanaka et al. 2020 (arXiv:2006.05467).
- `dss`: synaptic diversity and saliency, TF-TAS (arXiv:2203.12217).
- `naswot`: Mellor et al. 2021 (arXiv:2006.04647), with the MLPs' activations.
- `attention_entropy`: how spread out the attention of all layers is; ours, without a paper.

Where a network has no value (one that overflows, or a singular kernel) it is NaN, never a number.

Shape letters: B batch, C channels, Y x X grid, U hidden units.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from sharedattn.backbones import build
from sharedattn.networks.block import Block
from sharedattn.networks.measures import row_entropy
from sharedattn.networks.network import Network
from sharedattn.placement import NetworkSpec
from sharedattn.training.trainer import initialise

Proxy = Callable[[Network, Tensor, Tensor], float]
"""A figure of a network of one placement, of images (B, C, Y, X) and labels (B,)."""

_ATTENTION_PARTS = ("attn", "less", "external")


def grad_norm(network: Network, images_BCYX: Tensor, labels_B: Tensor) -> float:
    """Sum over parameters of the norm of the loss's gradient."""
    gradients = _loss_gradients(network, images_BCYX, labels_B)
    return _sum(gradient.norm() for _, gradient in gradients)


def snip(network: Network, images_BCYX: Tensor, labels_B: Tensor) -> float:
    """Sum over weights of |w dL/dw|, what each matters to the loss; biases and scales left out."""
    gradients = _loss_gradients(network, images_BCYX, labels_B)
    return _sum((w * gradient).abs().sum() for w, gradient in gradients if w.ndim > 1)


def synflow(network: Network, images_BCYX: Tensor, labels_B: Tensor) -> float:
    """Sum over parameters of w dR/dw, with R what a positive, norm-free copy makes of ones.

    Norms would make R the same whatever the weights, so that its gradient vanishes: they are left
    out of the copy.
    """
    _, gradients = _flow(network, images_BCYX)
    return _sum((w * gradient).sum() for w, gradient in gradients)


def dss(network: Network, images_BCYX: Tensor, labels_B: Tensor) -> float:
    """TF-TAS: diversity of the attentions' weights, and saliency of the MLPs'.

        sum_attention |dR/dW|_* |W|_* + sum_mlp |dR/dW W|, |.|_* the nuclear norm

    with R as `synflow` has it; the nuclear norm stands for a matrix's rank. Weights of external
    and less attention are weights of attention; a convolution is the matrix from its inputs.
    """
    positive, gradients = _flow(network, images_BCYX)
    gradient_of = {w.data_ptr(): gradient for w, gradient in gradients}

    def terms() -> Iterator[Tensor]:
        for block in _blocks(positive):
            for name, w in block.named_parameters():
                gradient = gradient_of.get(w.data_ptr())
                if gradient is None or w.ndim < 2:
                    continue
                if name.startswith(_ATTENTION_PARTS):
                    norms = [torch.linalg.matrix_norm(x.flatten(1), "nuc") for x in (gradient, w)]
                    yield norms[0] * norms[1]
                elif name.startswith("mlp."):
                    yield (gradient * w).abs().sum()

    return _sum(terms())


def naswot(network: Network, images_BCYX: Tensor, labels_B: Tensor) -> float:
    """Log-determinant of how alike images switch the MLPs' hidden units on and off.

    K_ij is the number of units that images i and j switch alike: a network that tells images apart
    has a K far from singular. A unit is on where what goes into its activation is positive.
    """
    B = len(images_BCYX)
    alike_BB = torch.zeros(B, B, dtype=torch.float64, device=images_BCYX.device)

    def count(_: nn.Module, __: object, hidden: Tensor) -> None:
        on_BU = (hidden.detach().reshape(B, -1) > 0).double()
        alike_BB.add_(on_BU @ on_BU.T + (1 - on_BU) @ (1 - on_BU).T)

    hooks = [_first_map(block).register_forward_hook(count) for block in _blocks(network)]
    try:
        with torch.no_grad():
            network(images_BCYX)
    finally:
        for hook in hooks:
            hook.remove()
    sign, log_determinant = torch.linalg.slogdet(alike_BB)
    return log_determinant.item() if sign > 0 else math.nan


def attention_entropy(network: Network, images_BCYX: Tensor, labels_B: Tensor) -> float:
    """Sum over layers of their attention's entropy, 0 to 1 each; 0 where it has no choice.

    That is a layer without attention, or one with a single key.
    """
    with torch.no_grad():
        result = network.run(images_BCYX, collect={"attention"})
    assert result.attention is not None
    entropies = (
        row_entropy(maps.reshape(len(images_BCYX), -1, *maps.shape[1:])).mean()
        for maps in result.attention
        if maps is not None and maps.shape[-1] > 1
    )
    return _sum(entropies)


PROXIES: Mapping[str, Proxy] = {
    proxy.__name__: proxy for proxy in (grad_norm, snip, synflow, dss, naswot, attention_entropy)
}
"""The proxies by their names."""


def proxy_values(
    spec: NetworkSpec,
    images_BCYX: Tensor,
    labels_B: Tensor,
    *,
    seed: int,
    init: str = "timm",
) -> dict[str, float]:
    """Every proxy of one placement's network, initialised as its training would begin.

    Args:
        spec: the network.
        images_BCYX: (B, C, Y, X), a batch of training images.
        labels_B: (B,), int64.
        seed: of the initialisation; torch's global generator is left as it was.
        init: as a recipe has it.

    Returns:
        Values by the proxies' names; NaN where there is none.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build(spec)
        initialise(network, init)
    network.to(images_BCYX.device).eval()
    return {name: proxy(network, images_BCYX, labels_B) for name, proxy in PROXIES.items()}


def _blocks(network: Network) -> Iterator[Block]:
    for stage, positions in enumerate(network.envelope.stages):
        for index in range(len(positions)):
            yield network.block(stage, index)


def _first_map(block: Block) -> nn.Module:
    """What gives an MLP's hidden units before their activation."""
    return next(m for m in block.mlp.modules() if isinstance(m, nn.Linear | nn.Conv2d))


def _loss_gradients(
    network: Network, images_BCYX: Tensor, labels_B: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Parameters with the gradient of the cross entropy by them."""
    return _gradients(network, F.cross_entropy(network(images_BCYX), labels_B))


def _flow(network: Network, images_BCYX: Tensor) -> tuple[Network, list[tuple[Tensor, Tensor]]]:
    """A copy without norms whose parameters are positive, and the gradients of its flow R."""
    # In float64: nothing holds the growth from layer to layer.
    positive = copy.deepcopy(network).double()
    for module in list(positive.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.LayerNorm | _BatchNorm):
                setattr(module, name, nn.Identity())
    with torch.no_grad():
        for parameter in positive.parameters():
            parameter.abs_()
    ones_1CYX = torch.ones_like(images_BCYX[:1], dtype=torch.float64)
    return positive, _gradients(positive, positive(ones_1CYX).sum())


def _gradients(network: Network, scalar: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Parameters that a scalar depends on, with its gradient by them; none is left on them."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(scalar, parameters, allow_unused=True)
    return [(p.detach(), g) for p, g in zip(parameters, gradients, strict=True) if g is not None]


def _sum(terms: Iterable[Tensor]) -> float:
    total = math.fsum(term.item() for term in terms)
    return total if math.isfinite(total) else math.nan
