"""Convert a command's options to a search's config, cost bounds and data options."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sharedattn.data.pixels import PixelChanges
from sharedattn.errors import InputError
from sharedattn.objectives import parse_bounds
from sharedattn.search.config import ComputeConfig, SearchConfig
from sharedattn.search.data_plan import DataOptions
from sharedattn.search.evaluation import EVALUATIONS, functions_of_plugins
from sharedattn.search.paths import StorageConfig
from sharedattn.spaces.budget import Budget
from sharedattn.units import Share


def search_config(arguments: argparse.Namespace, **changes: Any) -> SearchConfig:
    """The search's config from the given options, with defaults for the others."""
    parts = (SearchConfig, ComputeConfig, StorageConfig, *EVALUATIONS.values())
    names = {"evaluator", *(field.name for part in parts for field in fields(part))}
    given = {n: value for n, value in vars(arguments).items() if n in names and value is not None}
    given |= _of_plugin(given.get("evaluator", "scratch"))
    return SearchConfig.of(**{**given, **changes})


def _of_plugin(evaluator: str) -> dict[str, Any]:
    """The options that a plug-in's evaluator name expands to; empty for built-in names."""
    ours = [name for name in EVALUATIONS if name != "callable"]
    if evaluator in ours:
        return {}
    known = functions_of_plugins()
    if evaluator not in known:
        raise InputError(
            f"--evaluator is {evaluator!r}, and one of {', '.join((*ours, *known))}; if a plug-in "
            f"adds it, install that plug-in"
        )
    return {"evaluator": "callable", "function": known[evaluator]}


def data_options(arguments: argparse.Namespace) -> DataOptions:
    """The options for data on disk."""
    names = ("mean", "std", "interpolation", "crop_pct", "crop_mode")
    return DataOptions(
        test_split=arguments.test_split,
        classes=arguments.classes,
        on_bad_image=arguments.on_bad_image or "fail",
        scan=arguments.scan or "auto",
        tag=arguments.pixels,
        pixels=PixelChanges(**{name: getattr(arguments, name) for name in names}),
    )


def budget_of(arguments: argparse.Namespace, bounds: Mapping[str, float | Share]) -> Budget:
    """The budget of upper bounds by name and of `--min-macs`.

    Raises:
        InputError: an invalid bound.
    """
    return Budget(bounds=bounds, min_macs=arguments.min_macs)


def cost_bounds(arguments: argparse.Namespace) -> dict[str, float | Share]:
    """Cost bounds by name, from `--max` and the options that abbreviate it.

    Raises:
        InputError: a bound is invalid, or one cost has two.
    """
    short = {"macs": arguments.max_macs, "params": arguments.max_params}
    if "max_latency_ms" in arguments:
        short["latency_ms"] = arguments.max_latency_ms
    bounds: dict[str, float | Share] = {n: b for n, b in short.items() if b is not None}
    for name, bound in parse_bounds(arguments.bounds or ()):
        if name in bounds:
            raise InputError(f"--max bounds {name} twice; leave one of them out")
        bounds[name] = bound
    return bounds
