"""Replace the statistics of a network's batch norms within a block of code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Statistics = list[tuple[_BatchNorm, str, Tensor]]
"""A norm, the name of one of its statistics, and its value."""


def statistics_of(module: nn.Module) -> Statistics:
    """The statistics of a module's batch norms."""
    return [
        (norm, name, buffer)
        for norm in module.modules()
        if isinstance(norm, _BatchNorm)
        for name, buffer in norm.named_buffers()
    ]


@contextmanager
def in_place_of(own: Statistics, others: Sequence[Tensor]) -> Iterator[None]:
    """Make batch norms use and update other statistics, leaving their own unchanged.

    Args:
        own: from `statistics_of`.
        others: replacements of equal number and shapes.
    """
    for (norm, name, _), other in zip(own, others, strict=True):
        setattr(norm, name, other)
    try:
        yield
    finally:
        for norm, name, buffer in own:
            setattr(norm, name, buffer)
