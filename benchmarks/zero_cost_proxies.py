"""Zero-cost proxies: figures of an untrained network that are said to rank trained ones.

Each is a function of one network and one batch; according to its paper, higher is better. Whether
it ranks a space is measured here, against params and MACs, which cost nothing either.

- `grad_norm`, `snip`: as in Abdelfattah et al. 2021 (arXiv:2101.08134), the latter after
  Lee et al. 2019 (arXiv:1810.02340).
- `synflow`: Tanaka et al. 2020 (arXiv:2006.05467).
- `dss`: synaptic diversity and saliency, TF-TAS (arXiv:2203.12217).
- `naswot`: Mellor et al. 2021 (arXiv:2006.04647), with the MLPs' activations.
- `attention_entropy`: the mean spread of attention over layers; ours, without a paper.

An undefined value (an overflow, or a singular kernel) is NaN, never a number.

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
"""Maps a network of one placement, images (B, C, Y, X) and labels (B,) to a figure."""

_ATTENTION_PARTS = ("attn", "less", "external")


def grad_norm(network: Network, images_BCYX: Tensor, labels_B: Tensor) -> float:
    """Sum over parameters of the norm of the loss's gradient."""
    gradients = _loss_gradients(network, images_BCYX, labels_B)
    return _sum(gradient.norm() for _, gradient in gradients)


def snip(network: Network, images_BCYX: Tensor, labels_B: Tensor) -> float:
    """Sum over weights of |w dL/dw|, each one's effect on the loss; omits biases and scales."""
    gradients = _loss_gradients(network, images_BCYX, labels_B)
    return _sum((w * gradient).abs().sum() for w, gradient in gradients if w.ndim > 1)


def synflow(network: Network, images_BCYX: Tensor, labels_B: Tensor) -> float:
    """Sum over parameters of w dR/dw, with R the output of a positive, norm-free copy for ones.

    Norms would make R independent of the weights, and its gradient vanish, so the copy has none.
    """
    _, gradients = _flow(network, images_BCYX)
    return _sum((w * gradient).sum() for w, gradient in gradients)


def dss(network: Network, images_BCYX: Tensor, labels_B: Tensor) -> float:
    """TF-TAS: diversity of the attention weights, and saliency of the MLPs'.

        sum_attention |dR/dW|_* |W|_* + sum_mlp |dR/dW W|, |.|_* the nuclear norm

    with R as in `synflow`; the nuclear norm is a proxy of a matrix's rank. External and less
    attention's weights count as attention; a convolution counts as the matrix from its inputs.
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
    """Log-determinant of how similarly images switch the MLPs' hidden units on and off.

    K_ij is the number of units that images i and j switch alike: if a network distinguishes
    images, K is far from singular. A unit is on if the input of its activation is positive.
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
    """Sum over layers of the entropy of their attention, 0 to 1 each; 0 without a choice.

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
"""The proxies by name."""


def proxy_values(
    spec: NetworkSpec,
    images_BCYX: Tensor,
    labels_B: Tensor,
    *,
    seed: int,
    init: str = "timm",
) -> dict[str, float]:
    """All proxies of a placement's network, initialised as for its training.

    Args:
        spec: the network.
        images_BCYX: (B, C, Y, X), a batch of training images.
        labels_B: (B,), int64.
        seed: seed of the initialisation; torch's global generator is not changed.
        init: initialisation, as in a recipe.

    Returns:
        Values by the proxies' names; NaN if undefined.
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
    """The module that computes an MLP's hidden units before their activation."""
    return next(m for m in block.mlp.modules() if isinstance(m, nn.Linear | nn.Conv2d))


def _loss_gradients(
    network: Network, images_BCYX: Tensor, labels_B: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Parameters with the cross entropy's gradients."""
    return _gradients(network, F.cross_entropy(network(images_BCYX), labels_B))


def _flow(network: Network, images_BCYX: Tensor) -> tuple[Network, list[tuple[Tensor, Tensor]]]:
    """A norm-free copy with positive parameters, and the gradients of its flow R."""
    # In float64, since nothing limits the growth from layer to layer.
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
    """Parameters that a scalar depends on, with its gradients by them; `.grad` is not set."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(scalar, parameters, allow_unused=True)
    return [(p.detach(), g) for p, g in zip(parameters, gradients, strict=True) if g is not None]


def _sum(terms: Iterable[Tensor]) -> float:
    total = math.fsum(term.item() for term in terms)
    return total if math.isfinite(total) else math.nan
