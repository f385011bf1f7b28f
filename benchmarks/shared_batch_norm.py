"""Batch norms in shared gates: the gap between training and evaluation, by whose statistics it is.

    python benchmarks/shared_batch_norm.py [--steps 300] [--seeds 3]

Trains a small residual network on scikit-learn's digits, with a CBAM or an SRM unit for each
block, or shared by each stage's blocks, whose norm has statistics for each block or one for all.
The gap is the relative difference of logits on validation images between batch norms of gates that
use the statistics of the batch, as in training, and the running ones, as in evaluation; all other
norms use the running ones. Shown are means over seeds, and the range of the gap.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sharedattn.backbones import build, resolve
from sharedattn.data.digits import digit_splits
from sharedattn.networks.batch_norms import in_place_of, statistics_of
from sharedattn.networks.network import Network
from sharedattn.placement import NetworkSpec

BACKBONE = "resnet_cifar({}depths=6-6,in_chans=1,num_classes=10,stem_width=8,widths=8-16)@8"
OPTIONS = "cbam_reduction=4,"
FORMS = {
    "a unit for each block": ("", ""),
    "shared, bn=per_site": ("1", ""),
    "shared, bn=shared": ("1", "bn=shared,"),
}
BATCH_SIZE = 49


def images_and_labels(split: str) -> tuple[Tensor, Tensor]:
    """The digits of a split, (n, 1, 8, 8) and (n,)."""
    found = digit_splits()[split]  # type: ignore[index]
    return torch.from_numpy(found.images).unsqueeze(1), torch.from_numpy(found.labels)


def trained(text: str, num_steps: int, seed: int) -> Network:
    """A network trained by SGD with a cosine schedule."""
    torch.manual_seed(seed)
    images, labels = images_and_labels("train")
    network = build(resolve(NetworkSpec.parse(text))).train()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    for _ in range(num_steps):
        batch = torch.randint(len(images), (BATCH_SIZE,))
        optimizer.zero_grad()
        F.cross_entropy(network(images[batch]), labels[batch]).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def gap_and_top1(network: Network) -> tuple[float, float]:
    """|| logits of batch statistics - logits || / || logits ||, and the accuracy of the latter."""
    norms = [
        norm
        for name, norm in network.named_modules()
        if "_cells." in name or ".gate_sites." in name
        if isinstance(norm, nn.BatchNorm2d)
    ]
    own = [of_norm for norm in norms for of_norm in statistics_of(norm)]
    images, labels = images_and_labels("validation")
    logits = network(images)
    for norm in norms:
        norm.train()
    with in_place_of(own, [buffer.clone() for _, _, buffer in own]):
        as_trained = network(images)
    network.eval()
    top1 = (logits.argmax(1) == labels).float().mean().item()
    return ((as_trained - logits).norm() / logits.norm()).item(), top1


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for code, options in (("cbam", OPTIONS), ("srm", "")):
        for title, (number, option) in FORMS.items():
            stage = f"V6/{code}{number}"
            text = f"{BACKBONE.format(options + option)}: {stage} | {stage}"
            found = [gap_and_top1(trained(text, asked.steps, seed)) for seed in range(asked.seeds)]
            gaps, accuracies = zip(*found, strict=True)
            print(
                f"{code}, {title}: gap {statistics.mean(gaps):.2%} "
                f"({min(gaps):.2%} to {max(gaps):.2%}), top1 {statistics.mean(accuracies):.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
