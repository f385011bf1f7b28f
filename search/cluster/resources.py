"""Resources for trials: how many run at once, with how many cores and GPUs, and where."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from sharedattn.errors import InputError
from sharedattn.search.config import ComputeConfig
from sharedattn.search.executors import TrialResources
from sharedattn.search.executors.local import default_threads
from sharedattn.search.executors.process_group import processes_per_trial

MAX_DEFAULT_WORKERS = 8


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots that trials run in.

    Attributes:
        num_slots: number of trials at once.
        resources: resources of each.
        device: device on which they train.
    """

    num_slots: int
    resources: TrialResources
    device: str


def resolve_device(device: str) -> str:
    """Resolve `auto` to `cuda` if available, else to `cpu`.

    Raises:
        InputError: `device` is `cuda` and torch finds no such device.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("`--device cuda` requires a CUDA device, but torch finds none")
    return device


def find_slots(compute: ComputeConfig, processes: int | None = None) -> Slots:
    """The room for a search's trials; connects to its cluster where it has one.

    Args:
        compute: what is asked for.
        processes: processes that train a placement together, or None for one on each GPU.

    Raises:
        InputError: no such cluster or device, or too few resources for one trial.
    """
    if compute.executor != "ray":
        return _slots_here(compute, processes)
    # Imported here: a search on one machine needs no Ray.
    from sharedattn.search.executors.ray import executor as ray_tune

    ray_tune.connect(compute.address)
    return cluster_slots(compute, processes)


def _slots_here(compute: ComputeConfig, processes: int | None) -> Slots:
    device = resolve_device(compute.device)
    gpus = 0.0
    least_cpus = compute.cpus_per_trial or processes or 1
    num_fitting = min(MAX_DEFAULT_WORKERS, _num_cores() // least_cpus)
    if device == "cuda":
        gpus = compute.gpus_per_trial or 1.0
        num_fitting = int(torch.cuda.device_count() / gpus)
        if not num_fitting:
            raise InputError(
                f"`--gpus-per-trial` is {gpus:g}, but this machine has "
                f"{torch.cuda.device_count()} GPUs; lower it"
            )
    num_slots = compute.num_workers or max(1, num_fitting)
    cpus = compute.cpus_per_trial or default_threads(num_slots)
    return Slots(num_slots, TrialResources(cpus=cpus, gpus=gpus), device)


def cluster_slots(compute: ComputeConfig, processes: int | None = None) -> Slots:
    """The room for trials on the cluster that is connected; arguments as `find_slots`.

    Raises:
        InputError: too few resources for one trial.
    """
    from sharedattn.search.executors.ray import executor as ray_tune

    gpus = compute.gpus_per_trial
    if gpus is None:
        wanted = compute.device == "cuda" or (compute.device == "auto" and ray_tune.has_gpus())
        gpus = 1.0 if wanted else 0.0
    resources = TrialResources(
        cpus=compute.cpus_per_trial or processes or 1,
        gpus=gpus,
        custom=compute.resources_per_trial,
    )
    num_slots = ray_tune.trial_slots(resources, compute.num_workers)
    return Slots(num_slots, resources, "cuda" if gpus else "cpu")


def processes_here(asked: int | None, device: str) -> int:
    """Number of processes of a training on this machine.

    Args:
        asked: the requested number; defaults to one.
        device: device on which it trains.

    Raises:
        InputError: less than one, or more than the GPUs to train on.
    """
    num_processes = processes_per_trial(asked, TrialResources(gpus=max(1, asked or 1)), device)
    if device == "cuda" and torch.cuda.device_count() < num_processes:
        raise InputError(
            f"`--processes-per-trial` is {num_processes}, but this machine has "
            f"{torch.cuda.device_count()} GPUs and each process needs one; lower it"
        )
    return num_processes


def _num_cores() -> int:
    return len(os.sched_getaffinity(0))
