"""Two independent counters that check the closed-form cost on built networks.

fvcore counts a traced network by operator, with added handlers for fused attention and for a
batched product with a sum. torch's FlopCounterMode counts matrix products and convolutions as they
run. Both run a network of one placement in eval mode on one image.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sharedattn.mechanisms.interface import Branch, Gate
from sharedattn.mechanisms.registry import registry
from sharedattn.networks.network import Network

FREE_OPERATORS = frozenset(
    {
        "aten::add",
        "aten::cos",
        "aten::div",
        "aten::exp",
        "aten::eye",
        "aten::feature_dropout",
        "aten::gelu",
        "aten::index",
        "aten::im2col",
        "aten::log_softmax",
        "aten::max_pool1d",
        "aten::max_pool2d",
        "aten::mean",
        "aten::mul",
        "aten::pad",
        "aten::relu",
        "aten::repeat_interleave",
        "aten::roll",
        "aten::rsub",
        "aten::sigmoid",
        "aten::silu",
        "aten::sin",
        "aten::softmax",
        "aten::sub",
        "aten::sum",
        "aten::tanh",
        "aten::zeros_like",
    }
)
"""Operators unknown to fvcore that are free by its convention."""


def fvcore_macs(network: Network) -> int:
    """Multiply-accumulates per image as counted by fvcore.

    Args:
        network: a network of one placement.

    Returns:
        fvcore's total, where a multiply-add is 1 and a layer norm 5 per element.

    Raises:
        RuntimeError: the network runs an operator unknown to fvcore and not listed as free.
    """
    with _one_image(network) as image:
        analysis = (
            FlopCountAnalysis(network, image)
            .set_op_handle("aten::scaled_dot_product_attention", _fused_attention_macs)
            .set_op_handle("aten::baddbmm", _batched_product_macs)
            .unsupported_ops_warnings(False)
            .uncalled_modules_warnings(False)
            .tracer_warnings("none")
        )
        macs = int(analysis.total())
        known = registry()
        parts: list[Branch | Gate] = [*known.branches.values(), *known.gates.values()]
        free = FREE_OPERATORS.union(*(part.free_operators for part in parts))
        unknown = sorted(set(analysis.unsupported_ops()) - free)
        if unknown:
            raise RuntimeError(
                f"fvcore does not know {', '.join(unknown)}; give it a handler, or list it in "
                f"FREE_OPERATORS, or in `free_operators` of the mechanism that runs it"
            )
        return macs


def matmul_macs(network: Network) -> int:
    """Multiply-accumulates of matrix products and convolutions as counted by torch.

    Attention maps are requested so that attention runs as two products: torch counts the fused
    kernel as 0 on a CPU.

    Args:
        network: a network of one placement.

    Returns:
        FlopCounterMode's total, halved since it counts a multiply-add as 2.
    """
    with _one_image(network) as image, FlopCounterMode(display=False) as counter:
        network.run(image, collect={"attention"})
    flops: int = counter.get_total_flops()
    return flops // 2


@contextmanager
def _one_image(network: Network) -> Iterator[Tensor]:
    """An image for a network, which is in eval mode without gradients in the block."""
    training = network.training
    network.eval()
    parameter = next(network.parameters())
    try:
        with torch.no_grad():
            yield parameter.new_zeros(1, network.backbone.in_chans, *network.shape.image_size)
    finally:
        network.train(training)


def _fused_attention_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """Queries times keys, and maps times values: 2 B H N M K."""
    B, H, N, K = get_shape(inputs[0])
    M = get_shape(inputs[1])[-2]
    macs: int = 2 * B * H * N * M * K
    return macs


def _batched_product_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """(B, N, R) times (B, R, D), with a free addition: B N R D."""
    B, N, R = get_shape(inputs[1])
    macs: int = B * N * R * get_shape(inputs[2])[-1]
    return macs
