"""The training step of a network of convolutions with gates, in steps of the plain network.

    python benchmarks/gate_step.py [--gates dia1,se,eca,cbam,gc,srm,sge] [--batch 32] [--rounds 7]
        [--give-back]

Each network takes a step of SGD on one random batch of 32 x 32 pixels per round, in turn, in one
process on one thread. Shown is the median of the rounds' ratios of CPU seconds with the smallest
and largest; the first round of each is left out. With them stand the medians of page faults. Freed
memory is kept, as in all trainings of the command line; with `--give-back` the allocator returns
each large map to the system, which costs more than the arithmetic of a gate.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

import torch
from torch.nn import functional as F

from sharedattn.backbones import build, resolve
from sharedattn.networks.network import Network
from sharedattn.placement import NetworkSpec
from sharedattn.search.executors.host_memory import keep_freed_memory

BACKBONE = "resnet164_cifar(num_classes=100)"
DEPTH, NUM_STAGES = 18, 3


def step(network: Network, optimizer: torch.optim.Optimizer, batch_size: int) -> tuple[float, int]:
    """CPU seconds and page faults of one training step."""
    images, labels = torch.randn(batch_size, 3, 32, 32), torch.arange(batch_size) % 100
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    start = time.process_time()
    optimizer.zero_grad()
    F.cross_entropy(network(images), labels).backward()
    optimizer.step()
    seconds = time.process_time() - start
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gates", default="dia1,se,eca,cbam,gc,srm,sge", help="codes, by commas")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--give-back", action="store_true", help="freed memory, as glibc does")
    asked = parser.parse_args()
    if not asked.give_back:
        keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    stages = {"plain": f"V{DEPTH}"}
    stages |= {code: f"V{DEPTH}/{code}" for code in asked.gates.split(",")}
    networks = {}
    for name, stage in stages.items():
        spec = resolve(NetworkSpec.parse(f"{BACKBONE}: {' | '.join([stage] * NUM_STAGES)}"))
        network = build(spec).train()
        networks[name] = network, torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    faults: dict[str, list[int]] = {name: [] for name in networks}
    for number in range(asked.rounds + 1):
        for name, (network, optimizer) in networks.items():
            taken, faulted = step(network, optimizer, asked.batch)
            if number:
                seconds[name].append(taken)
                faults[name].append(faulted)
    plain = seconds.pop("plain")
    print(
        f"{BACKBONE}, batch {asked.batch}, one thread: plain "
        f"{statistics.median(plain):.2f} s a step, "
        f"{statistics.median(faults['plain']):,.0f} page faults"
    )
    for name, own in seconds.items():
        ratios = [a / b for a, b in zip(own, plain, strict=True)]
        print(
            f"/{name} / plain: {statistics.median(ratios):.3f} "
            f"({min(ratios):.3f} to {max(ratios):.3f}), "
            f"{statistics.median(faults[name]):,.0f} page faults",
            flush=True,
        )


if __name__ == "__main__":
    main()
