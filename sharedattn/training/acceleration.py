"""What makes training faster and changes its results by rounding only.

A recipe's options for it are off by default. The optimiser's fused kernels are chosen where the
optimiser is made.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from sharedattn.errors import InputError
from sharedattn.networks.network import Network, RunResult
from sharedattn.recipe import Recipe

# The layers of a supernet have more choices than the 8 that torch compiles by default; beyond the
# limit it silently runs them uncompiled.
_MOST_COMPILED = 256

_SLOW_BFLOAT16 = ("NO AVX", "DEFAULT", "AVX2")
"""Torch's words for processors on which it multiplies matrices of bfloat16 in a plain loop."""
_LEAST_ROWS = 32  # of a matrix, below which its products take no time worth the detour


@contextmanager
def autocast(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Run forward passes in the recipe's precision inside the block; no effect on a CPU."""
    if recipe.amp == "none" or device.type == "cpu":
        yield
    else:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            yield


class _Float32Products(TorchFunctionMode):
    """Computes products of bfloat16 matrices in float32, and rounds them to bfloat16 then.

    That is what such a product is defined as, but for the order of its sums.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        options = dict(kwargs or {})
        if func not in (torch.addmm, torch.baddbmm) or args[0].dtype != torch.bfloat16:
            return func(*args, **options)
        out = options.pop("out", None)
        product = func(*(matrix.float() for matrix in args), **options)
        return product.bfloat16() if out is None else out.copy_(product)


def update_products(parameters: Iterable[torch.Tensor]) -> AbstractContextManager[Any]:
    """A context for an optimiser's update, in which products of bfloat16 matrices are fast.

    Muon's Newton-Schulz iteration multiplies in bfloat16, for which torch has a plain loop on
    processors without AVX-512 (benchmarks/muon_products.py measures both).

    Args:
        parameters: what is updated; if it is not on a CPU, or all of it is small, nothing changes.
    """
    is_slow = torch.backends.cpu.get_cpu_capability() in _SLOW_BFLOAT16
    if is_slow and any(map(_is_large, parameters)):
        return _Float32Products()
    return nullcontext()


def _is_large(parameter: torch.Tensor) -> bool:
    """Whether a parameter is on the CPU and, as a matrix, large in both directions."""
    if parameter.ndim < 2 or parameter.device.type != "cpu" or not parameter.numel():
        return False
    num_rows = len(parameter)
    return min(num_rows, parameter.numel() // num_rows) >= _LEAST_ROWS


@contextmanager
def training_settings(recipe: Recipe) -> Iterator[None]:
    """Set torch as the recipe's `tf32` and `compile` ask inside the block, and restore it."""
    with ExitStack() as stack:
        if recipe.tf32:
            products = torch.backends.cuda.matmul
            stack.callback(setattr, products, "fp32_precision", products.fp32_precision)
            products.fp32_precision = "tf32"
        if recipe.compile:
            from torch._dynamo import config  # here, since it takes a second

            stack.enter_context(config.patch(recompile_limit=_MOST_COMPILED))
            # Tracing reads the gradients of a layer's inputs, which are not leaves.
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", message=r"The \.grad attribute of a Tensor")
        yield


def memory_format(recipe: Recipe) -> torch.memory_format:
    """The memory format of images and convolutions' weights in training."""
    return torch.channels_last if recipe.channels_last else torch.contiguous_format


def check_compiler(device: torch.device) -> None:
    """Check that torch.compile has what it needs on this machine.

    Raises:
        InputError: there is no C++ compiler, or for a GPU no Triton.
    """
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise InputError(
            f"`compile` of the recipe requires a C++ compiler on a CPU, but there is no "
            f"{compiler}; install one, name it in CXX, or leave out compile"
        )
    if device.type == "cuda" and find_spec("triton") is None:
        raise InputError(
            "`compile` of the recipe requires Triton on a GPU, which is not installed; install a "
            "torch that brings it, or leave out compile"
        )


def compiled_whole(network: Network, recipe: Recipe) -> Callable[..., RunResult]:
    """The `run` of a network built for one placement, compiled if the recipe asks for it.

    With `grad_checkpointing`, which torch does not trace with a context of ours, the network
    compiles its layers instead.

    Args:
        network: the network; its `compile_layers` is set.
        recipe: gives `compile` and `grad_checkpointing`.
    """
    network.compile_layers = recipe.compile and recipe.grad_checkpointing
    if recipe.compile and not recipe.grad_checkpointing:
        return torch.compile(network.run)
    return network.run
