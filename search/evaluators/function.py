"""An evaluator that calls a function, identified by what the function computes.

A program on standard input has no source, so the identity is derived from code objects: bytecode,
constants and names, the values in a closure, and the plain values and functions that it reads from
its own module. Python versions differ in bytecode, and so in identity; to reuse results across
versions, give the function an `identity`.
"""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import Parameter
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import cloudpickle
import torch

from sharedattn.backbones import build
from sharedattn.errors import InputError
from sharedattn.hashing import document_key
from sharedattn.image_size import AnySize
from sharedattn.progress import OnProgress
from sharedattn.results.records import EpochMetrics, Fidelity
from sharedattn.search.evaluators.base import Evaluator, Measurement, Task
from sharedattn.tasks import head_kind

FURTHER = ("loss", "num_images", "wall_time_s")
"""Metrics that the database can store beside the quality."""


@dataclass(frozen=True)
class FunctionEvaluator(Evaluator):
    """Calls a function for each placement.

    Attributes:
        function: maps a network or a placement to metrics by name.
        identity: identifies what it computes.
        takes: the argument that it takes: network or placement.
        image_size: pixels on a side of the images, or their height and width.
        device: device of the network.
    """

    function: Callable[..., Any]
    identity: str
    takes: str
    image_size: AnySize
    device: str = "cpu"

    @classmethod
    def of(
        cls, function: Callable[..., Any], *, image_size: AnySize, device: str = "cpu"
    ) -> FunctionEvaluator:
        """Create the evaluator of a function.

        Args:
            function: takes one parameter; if that is named `placement`, it gets a placement.
            image_size: pixels on a side of the images, or their height and width.
            device: device of its network.

        Raises:
            InputError: it is not a callable of one argument, or it cannot be identified.
        """
        if not callable(function):
            raise InputError(f"`evaluator` is a callable, but got {function!r}")
        return cls(function, identity_of(function), _takes(function), image_size, device)

    @property
    def recipe_key(self) -> str:
        return document_key({"evaluator": self.identity})

    @property
    def data_fingerprint(self) -> str:
        return document_key({"data of evaluator": self.identity})

    @property
    def fidelity(self) -> Fidelity:
        return Fidelity(epochs=1, image_size=self.image_size)

    def evaluate(
        self, task: Task, on_progress: OnProgress | None = None
    ) -> Generator[EpochMetrics, None, Measurement]:
        yield from ()
        begun = time.perf_counter()
        # The caller's later random numbers must not depend on where its trials ran.
        with torch.random.fork_rng():
            torch.manual_seed(task.seed)
            if self.takes == "placement":
                returned = self.function(task.spec.placement)
            else:
                returned = self.function(build(task.spec).to(self.device))
        quality = head_kind(task.spec.backbone.head).quality
        metrics = _checked(returned, quality)
        return Measurement(
            split="evaluator",
            top1=metrics[quality],
            loss=metrics.get("loss", 0.0),
            num_images=int(metrics.get("num_images", 0)),
            wall_time_s=metrics.get("wall_time_s", time.perf_counter() - begun),
            device=self.device,
        )


def _takes(function: Callable[..., Any]) -> str:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise InputError(f"`evaluator` has no signature that can be read: {error}") from error
    variadic = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    needed = [p for p in parameters if p.default is p.empty and p.kind not in variadic]
    first = next(iter(parameters), None)
    if first is None or len(needed) > 1 or first.kind is first.KEYWORD_ONLY:
        raise InputError(
            f"`evaluator` takes one argument, the network or `placement`, but its signature is "
            f"{inspect.signature(function)}"
        )
    return "placement" if first.name == "placement" else "network"


def _checked(returned: Any, quality: str) -> dict[str, float]:
    """Convert a function's result to metrics.

    Args:
        returned: what the function returned.
        quality: name of what is measured of the network.

    Raises:
        InputError: it is not a mapping of names to metrics, lacks the quality, or has an unknown
            metric.
    """
    if not isinstance(returned, Mapping) or quality not in returned:
        raise InputError(
            f'the evaluator returns metrics by name, such as {{"{quality}": 0.7}}, but got '
            f"{returned!r}"
        )
    stored = (quality, *FURTHER)
    unknown = [str(name) for name in returned if name not in stored]
    if unknown:
        raise InputError(
            f"the evaluator returned {', '.join(unknown)}, and there is no place for it; return "
            f"of {', '.join(stored)}"
        )
    try:
        return {name: float(value) for name, value in returned.items()}
    except (TypeError, ValueError) as error:
        raise InputError(f"the evaluator returned a metric that is no number: {error}") from error


def identity_of(function: Callable[..., Any]) -> str:
    """The function's `identity`, or else a hash of what it computes.

    Raises:
        InputError: the `identity` is not a string, or a value in its closure has no hash.
    """
    own = getattr(function, "identity", None)
    if own is not None:
        if not isinstance(own, str) or not own:
            raise InputError(f"`evaluator.identity` is a text, but got {own!r}")
        return own
    return hashlib.sha256(_described(function, ()).encode()).hexdigest()


def _described(value: Any, seen: tuple[int, ...]) -> str:
    """Text that is the same for equal values in all processes of one Python version."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return f"{type(value).__name__}:{value!r}"
    if id(value) in seen:
        return f"again:{seen.index(id(value))}"
    seen = (*seen, id(value))
    if isinstance(value, CodeType):
        return _described_code(value, seen)
    if isinstance(value, tuple | list):
        return f"{type(value).__name__}({','.join(_described(v, seen) for v in value)})"
    if isinstance(value, set | frozenset):
        return f"set({','.join(sorted(_described(v, seen) for v in value))})"
    if isinstance(value, Mapping):
        pairs = (f"{_described(k, seen)}={_described(v, seen)}" for k, v in value.items())
        return f"mapping({','.join(sorted(pairs))})"
    if isinstance(value, torch.Tensor):
        return f"tensor({hashlib.sha256(cloudpickle.dumps(value.cpu().numpy())).hexdigest()})"
    if isinstance(value, ModuleType):
        return f"module:{value.__name__}"
    return _described_object(value, seen)


def _described_object(value: Any, seen: tuple[int, ...]) -> str:
    if isinstance(value, FunctionType):
        return _described_function(value, seen)
    if isinstance(value, MethodType):
        return f"method({_described(value.__func__, seen)},{_described(value.__self__, seen)})"
    if isinstance(value, partial):
        parts = (value.func, value.args, value.keywords)
        return f"partial{_described(parts, seen)}"
    if isinstance(value, type | BuiltinFunctionType):
        name = f"{value.__module__}.{value.__qualname__}"
        if isinstance(value, type) and value.__module__ == "__main__":
            methods = {n: m for n, m in vars(value).items() if isinstance(m, FunctionType)}
            return f"class:{name}{_described(methods, seen)}"
        return f"named:{name}"
    call = getattr(type(value), "__call__", None)  # noqa: B004 (its code, not whether it has one)
    if isinstance(call, FunctionType) and hasattr(value, "__dict__"):
        return f"callable({_described(call, seen)},{_described(vars(value), seen)})"
    try:
        return f"pickle({hashlib.sha256(cloudpickle.dumps(value)).hexdigest()})"
    except Exception as error:
        raise InputError(
            f"`evaluator` holds a {type(value).__name__}, which has no hash ({error}); give the "
            f"evaluator an `identity`, a text that names what it computes"
        ) from error


def _described_function(function: FunctionType, seen: tuple[int, ...]) -> str:
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    parts = (function.__code__, function.__defaults__, function.__kwdefaults__, cells)
    return f"function({_described(parts, seen)},{_described(_read_globals(function), seen)})"


def _read_globals(function: FunctionType) -> dict[str, Any]:
    """The module globals that a function reads: plain values, and the module's own functions."""
    found = {}
    for name in _names(function.__code__):
        value = function.__globals__.get(name)
        is_own = isinstance(value, FunctionType) and value.__module__ == function.__module__
        if is_own or isinstance(value, bool | int | float | str | bytes):
            found[name] = value
    return found


def _names(code: CodeType) -> set[str]:
    """Names that a code object and its nested ones look up."""
    inner = (_names(const) for const in code.co_consts if isinstance(const, CodeType))
    return set(code.co_names).union(*inner)


def _described_code(code: CodeType, seen: tuple[int, ...]) -> str:
    # Leave out line numbers and the file's name: they do not affect what it computes.
    parts = (code.co_code, code.co_consts, code.co_names, code.co_freevars, code.co_varnames)
    return f"code{_described(parts, seen)}"
