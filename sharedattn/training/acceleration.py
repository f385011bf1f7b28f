"""What makes training faster and changes its results by rounding only: a recipe's options for it.

Each is off by default. The optimiser's fused kernels are chosen where the optimiser is made.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec

import torch

from sharedattn.errors import InputError
from sharedattn.networks.network import Network, RunResult
from sharedattn.recipe import Recipe

# The layers of a supernet have more choices than the 8 that torch compiles by default; beyond the
# limit it silently runs them uncompiled.
_MOST_COMPILED = 256


@contextmanager
def autocast(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Run forward passes in the recipe's precision inside the block; no effect on a CPU."""
    if recipe.amp == "none" or device.type == "cpu":
        yield
    else:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            yield


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
