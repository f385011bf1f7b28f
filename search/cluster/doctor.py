"""Checks that this machine, or a cluster, is ready for a search, without changing anything."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path

import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from sharedattn.data import DataConfig, open_data
from sharedattn.errors import InputError
from sharedattn.mechanisms.interface import Branch, Gate
from sharedattn.mechanisms.registry import registry
from sharedattn.plugins import installed
from sharedattn.results.artifacts.blobs import BlobStore
from sharedattn.results.database.engine import Schema, look_at, parse_url, shown_url
from sharedattn.results.database.store import Store
from sharedattn.results.export.verify import Check
from sharedattn.search.cluster.node_checks import TIMEOUT_S, Ask, node_checks, reason
from sharedattn.search.cluster.resources import Slots, cluster_slots, find_slots
from sharedattn.search.config import ComputeConfig
from sharedattn.search.data_plan import DEFAULT_DATA, DataOptions
from sharedattn.search.data_plan import look_at as look_at_data
from sharedattn.search.evaluation import FromScratch
from sharedattn.search.paths import StorageConfig
from sharedattn.search.plan_text import of_classes
from sharedattn.search.provenance import NOT_INSTALLED, library_versions, provenance
from sharedattn.tasks import CLASSIFY

MIN_FREE_GIB = 1
MAX_CLOCK_DIFFERENCE_S = 60  # far below the age at which other hosts' temporary files are deleted
_ANY = "any"
_GIB = 2**30
_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


def diagnose(
    training: FromScratch,
    compute: ComputeConfig,
    storage: StorageConfig,
    *,
    task: str = CLASSIFY,
    contracts: bool = False,
) -> Iterator[Check]:
    """What a search would find, one thing after the other.

    Args:
        training: names the data, and where weights are kept.
        compute: where trials run; with the executor `ray` every node of its cluster is asked as
            well.
        storage: where the search keeps things.
        task: what the data is read for.
        contracts: whether the mechanisms of plug-ins are held to their contract, which takes some
            seconds for each.

    Raises:
        InputError: the named data cannot serve the task.
    """
    data = DataConfig(name=training.data or DEFAULT_DATA, root=training.data_root, task=task)

    def blobs() -> BlobStore:
        return storage.weights(training.weights_dir).blobs

    yield from _library_checks()
    yield from _plugin_checks()
    if contracts:
        yield from _contract_checks()
    yield _check("processor", _ANY, _processor)
    yield _check("memory", _ANY, _memory)
    for index in range(torch.cuda.device_count()):
        yield _check(f"GPU {index}", "multiplies", partial(_gpu, index))
    yield _check("disk", f"{MIN_FREE_GIB} GiB free", partial(_disk, storage.out))
    yield _check("database", "fit for a search", partial(_database, storage.url))
    weights = _check("weights", "can be written", partial(_weights, blobs))
    opens = _check("data", "opens", partial(_data, data, training.data_options, storage))
    yield from (weights, opens)
    if compute.executor == "ray":
        yield from _cluster_checks(
            compute, data if opens.ok else None, blobs() if weights.ok else None
        )
    else:
        yield _check("trials at once", "at least 1", lambda: _listed(find_slots(compute)))


def _check(name: str, expected: str, find: Callable[[], str]) -> Check:
    """A check that reports what `find` returns, or why it raised."""
    try:
        return Check(name, expected, find(), True)
    except (InputError, OSError, RuntimeError) as error:  # the last by CUDA and the storage
        return Check(name, expected, reason(error), False)


def _library_checks() -> Iterator[Check]:
    """Installed versions against the package's requirements."""
    wanted = _wanted()
    for name, found in library_versions().items():
        versions = wanted.pop(name, SpecifierSet())
        yield Check(name, str(versions) or _ANY, found, _fits(found, versions))
    for name, versions in wanted.items():
        found = _version(name)
        if not _fits(found, versions):
            yield Check(name, str(versions) or _ANY, found, False)


def _plugin_checks() -> Iterator[Check]:
    """Every plug-in, and whether their registrations are compatible; empty if there is none."""
    plugins = installed()
    for plugin in plugins:
        yield Check(f"plugin {plugin.name}", _ANY, plugin.version, True)
    if plugins:
        yield _check("mechanisms", "load", _mechanisms)


def _mechanisms() -> str:
    known = registry()
    return ", ".join((*known.branches, *known.gates))


def _contract_checks() -> Iterator[Check]:
    """Whether each mechanism of a plug-in keeps the contract of mechanisms."""
    # Imported here: it loads fvcore's counters, which nothing else here needs.
    from sharedattn.testing import check_mechanism

    try:
        known = registry()
    except InputError:
        return  # reported among the plug-ins
    for name in known.plugins:
        what, key = name.split(" ")
        part = known.branches[key] if what == "branch" else known.gates[key]

        def find(part: Branch | Gate = part) -> str:
            try:
                check_mechanism(part)
            except AssertionError as error:
                raise InputError(f"{part.title}: {error}") from error
            return part.title

        yield _check(f"contract of {name}", "kept", find)


def _wanted() -> dict[str, SpecifierSet]:
    """The required versions, without those of extras; empty in a checkout."""
    try:
        package = metadata("sharedattn")
    except PackageNotFoundError:
        return {}
    requirements = map(Requirement, package.get_all("Requires-Dist") or ())
    return {
        "python": SpecifierSet(package["Requires-Python"]),
        **{r.name: r.specifier for r in requirements if not r.marker or r.marker.evaluate()},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return NOT_INSTALLED


def _fits(found: str, versions: SpecifierSet) -> bool:
    return found != NOT_INSTALLED and versions.contains(found, prereleases=True)


def _processor() -> str:
    machine = provenance()["machine"]
    return (
        f"{machine['cores']} cores of {machine['processor']}; torch takes "
        f"{torch.get_num_threads()} threads"
    )


def _memory() -> str:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    kibibytes = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
    total, free = (kibibytes[name] * 1024 for name in ("MemTotal", "MemAvailable"))
    return f"{_size(total)}, {_size(free)} of it free"


def _gpu(index: int) -> str:
    properties = torch.cuda.get_device_properties(index)
    _multiply(torch.device("cuda", index))
    parts = [
        properties.name,
        f"{_size(properties.total_memory)}, {_size(torch.cuda.mem_get_info(index)[0])} of it free",
        f"CUDA {torch.version.cuda}",
    ]
    if _NVIDIA_DRIVER.exists():
        found = re.search(r"\s(\d+(\.\d+)+)\s", _NVIDIA_DRIVER.read_text(encoding="utf-8"))
        parts += [f"driver {found[1]}"] if found else []
    return "; ".join(parts)


def _multiply(device: torch.device) -> None:
    """Check a matrix product of whole numbers, which float32 represents exactly.

    Raises:
        RuntimeError: the device cannot compute it, or computes it wrongly.
    """
    left, right = (torch.randint(-8, 9, (257, 257)).float() for _ in range(2))
    if not torch.equal((left.to(device) @ right.to(device)).cpu(), left @ right):
        raise RuntimeError(f"a product of matrices on {device} differs from the processor's")


def _disk(out: Path) -> str:
    place = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if free < MIN_FREE_GIB * _GIB:
        raise OSError(f"{_size(free)} free at {place}; make room, or name another --out")
    return f"{_size(free)} free at {place}"


def _database(url: str) -> str:
    shown, schema = shown_url(parse_url(url)), look_at(url)
    if schema is Schema.EMPTY:
        return f"{shown}: empty, a search makes its tables"
    if schema is Schema.OLDER:
        return f"{shown}: older, the next search upgrades it"
    with Store.open(url, read_only=True) as store:
        studies = store.studies()
        drivers = [(study.record.name, store.driver_of(study)) for study in studies]
    driven = [f"{name!r} is being searched by {driver}" for name, driver in drivers if driver]
    return "; ".join([f"{shown}: {len(studies)} studies", *driven])


def _weights(find: Callable[[], BlobStore]) -> str:
    blobs = find()
    blobs.check_writable()
    return blobs.shown()


def _data(data: DataConfig, options: DataOptions, storage: StorageConfig) -> str:
    # Every image is looked at, as a search would; what is seen is not written down.
    source = open_data(look_at_data(data, options, storage.scans, remember=False))
    train, validation, test = (
        source.num_images(split) for split in ("train", "validation", "test")
    )
    return (
        f"{source.name}: {train:,} training, {validation:,} validation and {test:,} test "
        f"images{of_classes(source.num_classes, source.class_names)}"
    )


def _listed(slots: Slots) -> str:
    resources = slots.resources
    each = {"CPU": resources.cpus, "GPU": resources.gpus, **resources.custom}
    return f"{slots.num_slots}, each with {_amounts(each)}"


def _amounts(resources: Mapping[str, float]) -> str:
    """Resources by Ray's names, without Ray's internal ones."""
    shown = [
        _size(amount) if name == "memory" else f"{amount:g} {name}"
        for name, amount in resources.items()
        if amount and ":" not in name and name != "object_store_memory"
    ]
    return ", ".join(shown)


def _cluster_checks(
    compute: ComputeConfig, data: DataConfig | None, blobs: BlobStore | None
) -> Iterator[Check]:
    # Imported here: only a cluster needs Ray.
    from sharedattn.search.executors.ray import executor as ray_tune

    def connected() -> str:
        ray_tune.connect(compute.address)
        return "; ".join(
            f"{node}: {_amounts(total)}" for node, total in ray_tune.node_resources().items()
        )

    reached = _check("cluster", "can be reached", connected)
    yield reached
    if not reached.ok:
        return
    try:
        yield _check("trials at once", "at least 1", lambda: _listed(cluster_slots(compute)))
        yield from node_checks(ray_tune.on_every_node, data, blobs)
        yield _clocks(ray_tune.on_every_node)
    finally:
        ray_tune.disconnect()


def _clocks(ask: Ask) -> Check:
    before = time.time()
    answers = ask(_now, timeout_s=TIMEOUT_S)
    after = time.time()
    parts, is_near = [], True
    for node, theirs in answers.items():
        if isinstance(theirs, BaseException):
            parts.append(f"{node} does not answer: {reason(theirs)}")
            is_near = False
            continue
        # The node read its clock some time in between.
        difference = max(before - theirs, theirs - after, 0.0)
        parts.append(f"{node} {difference:.1f} s")
        is_near &= difference <= MAX_CLOCK_DIFFERENCE_S
    expected = f"within {MAX_CLOCK_DIFFERENCE_S} s of the driver's"
    return Check("clocks", expected, ", ".join(parts), is_near)


def _now() -> float:
    return time.time()


def _size(num_bytes: float) -> str:
    return f"{num_bytes / _GIB:.1f} GiB"
