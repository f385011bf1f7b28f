"""An evaluator that builds the networks it is asked about."""

from dataclasses import dataclass, replace

from fakes import Fake

from sharedattn.backbones import build


@dataclass(frozen=True)
class Building(Fake):
    """Takes the network's own parameters for its accuracy, so that a process has to build it."""

    def measure(self, task):
        num_params = sum(p.numel() for p in build(task.spec).parameters())
        return replace(super().measure(task), top1=num_params % 997 / 997)
