"""Build models without storage, in order to read their sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_FILLS = frozenset(
    {
        "add_",
        "clamp_",
        "constant_",
        "copy_",
        "erfinv_",
        "fill_",
        "kaiming_uniform_",
        "mul_",
        "normal_",
        "uniform_",
        "zero_",
    }
)
"""Functions with which models initialise their weights."""


class _NothingToFill(TorchFunctionMode):
    """Skips filling tensors without storage, which takes most of the time of such a build."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _FILLS:
            # `torch.nn.init` passes its argument by name.
            target = args[0] if args else kwargs.get("tensor")
            if isinstance(target, Tensor) and target.is_meta:
                return target
        return func(*args, **kwargs)


@contextmanager
def without_storage() -> Iterator[None]:
    """Build modules in the block with sizes but without values."""
    with torch.device("meta"), _NothingToFill():
        yield
