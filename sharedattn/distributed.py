"""Share one network's training among the processes of one machine.

Every process takes an equal shard of each batch, and the mean of their gradients is the gradient
of the whole batch. A single process is rank 0 of a world of size 1, where nothing of this has an
effect.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

_LOOPBACK = "127.0.0.1"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rank:
    """The rank of one process among those that train a network together.

    Attributes:
        index: the process's number, from 0 to `world_size` - 1.
        world_size: number of processes; more than one form torch's default process group.
    """

    index: int = 0
    world_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files for all."""
        return self.index == 0

    def shard_positions(self, batch_size: int) -> list[int]:
        """The positions of this process's shard of a training batch, ascending.

        Positions are taken in pairs from the batch's ends inward: the first with the last, and so
        on. timm's mixup and cutmix pair them in the same way, mixing a batch with its reverse. So
        a shard is mixed by itself as it is in the whole batch, and no process needs another's
        images.

        Args:
            batch_size: number of images of the whole batch; a multiple of `world_size`.
        """
        size = batch_size // self.world_size
        inward = sorted(range(batch_size), key=lambda i: min(i, batch_size - 1 - i))
        return sorted(inward[self.index * size : (self.index + 1) * size])

    def shard_batches(self, batches: Sequence[T]) -> Sequence[T]:
        """This process's shard of an evaluation's batches: every `world_size`-th one."""
        return batches[self.index :: self.world_size]

    def sum_(self, tensor: Tensor) -> None:
        """Sum a tensor over all processes, in place; each gets the same bits."""
        if self.world_size > 1:
            dist.all_reduce(tensor)

    def gathered(self, items: list[T]) -> list[T]:
        """The items of all processes in the order of their ranks; each gets all."""
        if self.world_size == 1:
            return items
        found: list[list[T]] = [[] for _ in range(self.world_size)]
        dist.all_gather_object(found, items)
        return [item for of_rank in found for item in of_rank]

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every process the mean of their gradients.

        All gradients are sent as one vector in the order of the parameters, after the backward
        pass. torch's DistributedDataParallel sends buckets during it, and their layout changes
        after the first step. With three or more processes the layout determines the order of
        sums, so a training resumed from a checkpoint would differ from its first step on.
        """
        if self.world_size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            # No process has one: the placements only use parameters that are fixed.
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.world_size
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def share_batch_norms(self, network: nn.Module) -> None:
        """Make batch norms use the statistics of whole batches, in place; GPUs only."""
        if self.world_size > 1:
            nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]


ALONE = Rank()


class Rendezvous:
    """The meeting point of a group's processes: a store that listens on loopback only.

    Attributes:
        port: port of the store.
    """

    def __init__(self) -> None:
        # Torch's own socket would listen on every interface.
        listener = socket.create_server((_LOOPBACK, 0))
        self.port: int = listener.getsockname()[1]
        self._store = dist.TCPStore(  # type: ignore[attr-defined]
            _LOOPBACK,
            self.port,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=listener.detach(),
        )


def join(rank: Rank, port: int, device: str) -> None:
    """Join this process to its group, which becomes torch's default one.

    Args:
        rank: the rank of this process.
        port: port of the group's `Rendezvous`.
        device: the device type; with `cuda`, the visible GPU of the rank's index becomes current.
    """
    # Keeps the traffic on this machine, whatever address its name has.
    interface = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = interface
    store = dist.TCPStore(_LOOPBACK, port, is_master=False)  # type: ignore[attr-defined]
    backend = "gloo"
    if device == "cuda":
        backend = "nccl"
        torch.cuda.set_device(rank.index)
    dist.init_process_group(backend, store=store, rank=rank.index, world_size=rank.world_size)
