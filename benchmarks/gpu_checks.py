"""Checks of what only a GPU can show, as plain functions of a device.

`gpu_check.py` runs them on one card without pytest, and `tests/sharedattn/test_gpu.py` on the CPU
and on whatever GPU there is. Each returns what it measured and raises AssertionError if it is
wrong; what has no meaning on a CPU says so.
"""

from __future__ import annotations

import gc
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sharedattn.backbones import build, describe, resolve
from sharedattn.costs.timing import time_call
from sharedattn.data.source import Batch, DataSource
from sharedattn.distributed import ALONE, Rank
from sharedattn.image_size import ImageSize
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement, ResolvedSpec
from sharedattn.recipe import Recipe
from sharedattn.testing.tiny_backbones import TINY, tiny_backbone
from sharedattn.training.trainer import Trainer

Found = dict[str, Any]
NEEDS_GPU: Found = {"skipped": "needs a GPU"}

RECIPE = Recipe(epochs=4, batch_size=13, lr=5e-3, warmup_epochs=1.0, init="torch")
TINY_VIT = (
    "vit(class_token=false,depth=4,embed_dim=22,global_pool=avg,in_chans=3,num_classes=3,"
    "num_heads=2,patch_size=5)@15: V,L/keys,E/s7/cb,L/d0"
)
# Activations of a batch are far larger than weights, so that half of it needs half the memory.
HUNGRY_VIT = (
    "vit(class_token=false,depth=4,embed_dim=192,global_pool=avg,in_chans=3,num_classes=3,"
    "num_heads=3,patch_size=16)@224: V4"
)
HUNGRY_BATCH = 256


class Synthetic(DataSource):
    """One batch that stays on the device, of classes told apart by brightness.

    Args:
        image_size: height and width in pixels.
        in_chans: number of image channels.
        num_classes: number of classes.
        batch_size: number of images of the batch.
        steps: number of times that an epoch shows it.
    """

    name = "synthetic"

    def __init__(
        self, image_size: ImageSize, in_chans: int, num_classes: int, batch_size: int, steps: int
    ) -> None:
        self.image_size, self.in_chans, self.num_classes = image_size, in_chans, num_classes
        self.identity = {"name": self.name}
        self._batch_size, self._steps = batch_size, steps
        self._on: dict[torch.device, Batch] = {}

    @classmethod
    def of(cls, spec: ResolvedSpec, batch_size: int, steps: int) -> Synthetic:
        """Images that fit a network."""
        backbone = spec.backbone
        return cls(
            spec.shape.image_size, backbone.in_chans, backbone.num_classes, batch_size, steps
        )

    def num_images(self, split: str) -> int:
        return self._batch_size * (self._steps if split == "train" else 1)

    def batch(self, device: torch.device) -> Batch:
        """Images (B, C, Y, X) and labels (B,) on a device."""
        if device not in self._on:
            shape = (self._batch_size, self.in_chans, *self.image_size)
            images = torch.randn(shape, generator=torch.Generator().manual_seed(0)) / 2
            labels = torch.arange(self._batch_size) % self.num_classes
            images += labels.view(-1, 1, 1, 1) / self.num_classes
            self._on[device] = images.to(device), labels.to(device)
        return self._on[device]

    def train_batches(
        self, recipe: Recipe, *, seed: int, epoch: int, device: torch.device, rank: Rank = ALONE
    ) -> Iterator[Batch]:
        for _ in range(self._steps):
            yield self.batch(device)

    def eval_batches(
        self,
        split: str,
        *,
        batch_size: int,
        device: torch.device,
        at_most: int | None = None,
        rank: Rank = ALONE,
    ) -> Iterator[Batch]:
        yield self.batch(device)


@contextmanager
def exact_float32() -> Iterator[None]:
    """Convolutions and matrix products without TF32 inside the block."""
    places = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "ieee"
        yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


def losses(device: str, **changes: Any) -> list[float]:
    """Training losses of the tiny ViT, epoch by epoch."""
    return _losses_of(replace(RECIPE, **changes), device)


def _losses_of(recipe: Recipe, device: str) -> list[float]:
    trainer = _trainer(recipe, device)
    while not trainer.finished:
        trainer.run_epoch()
    return [epoch.train_loss for epoch in trainer.curve]


def _trainer(recipe: Recipe, device: str) -> Trainer:
    spec = resolve(NetworkSpec.parse(TINY_VIT))
    data = Synthetic.of(spec, recipe.batch_size, 3)
    # Initialised on the CPU, so with the same weights on every device.
    return Trainer(spec, data, recipe, seed=0, device=device)


def _close(name: str, ours: Any, theirs: Any, rtol: float, atol: float = 0.0) -> float:
    """Compare, and return the largest relative difference."""
    ours, theirs = (torch.as_tensor(x).detach().cpu().double() for x in (ours, theirs))
    torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol, msg=lambda m: f"{name}: {m}")
    return float(((ours - theirs).abs() / theirs.abs().clamp_min(1e-6)).max())


def check_families(device: str) -> Found:
    """Logits and gradients of every family are those of the CPU, in float32."""
    worst = 0.0
    for name in TINY:
        backbone = tiny_backbone(name)
        placement = Placement.all_vanilla(stage.max_depth for stage in describe(backbone).stages)
        results = [_pass(backbone, placement, on) for on in ("cpu", device)]
        for kind, ours, theirs in zip(("logits", "gradient"), results[1], results[0], strict=True):
            _close(f"{kind} of {name}", ours, theirs, rtol=1e-3, atol=1e-4)
            worst = max(worst, float((ours - theirs).abs().max()))
    return {"families": len(TINY), "largest_difference": worst}


def _pass(backbone: BackboneSpec, placement: Placement, device: str) -> tuple[Tensor, Tensor]:
    """Logits, and all gradients as one vector, on the CPU."""
    torch.manual_seed(0)
    network = build(NetworkSpec(backbone, placement)).to(device).train()
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(11, backbone.in_chans, *network.shape.image_size, generator=generator).to(
        device
    )
    with exact_float32():
        logits = network(images)
        logits.square().mean().backward()
    gradients = [p.grad.reshape(-1) for p in network.parameters() if p.grad is not None]
    return logits.detach().cpu(), torch.cat(gradients).cpu()


def check_fused_attention(device: str) -> Found:
    """The fused kernel gives what explicit attention gives, in float32 and in bfloat16."""
    found = {}
    for dtype, tolerance in ((torch.float32, 1e-3), (torch.bfloat16, 5e-2)):
        outputs = []
        for fused in (True, False):
            torch.manual_seed(0)
            network = build(NetworkSpec.parse(TINY_VIT), fused=fused).to(device, dtype).eval()
            images = torch.randn(7, 3, 15, 15, generator=torch.Generator().manual_seed(1))
            with torch.inference_mode(), exact_float32():
                outputs.append(network(images.to(device, dtype)))
        name = str(dtype).removeprefix("torch.")
        _close(name, outputs[0], outputs[1], rtol=tolerance, atol=tolerance)
        found[name] = float((outputs[0] - outputs[1]).abs().max())
    return found


def check_training(device: str) -> Found:
    """A training's losses are those of the CPU, and resuming does not change them."""
    with exact_float32():
        expected, ours = losses("cpu"), losses(device)
        first = _trainer(RECIPE, device)
        first.run_epoch()
        file = io.BytesIO()
        torch.save(first.state_dict(), file)
        file.seek(0)
        second = _trainer(RECIPE, device)
        second.load_state_dict(torch.load(file, map_location=device, weights_only=True))
        while not second.finished:
            second.run_epoch()
    resumed = [epoch.train_loss for epoch in second.curve]
    return {
        "from_cpu": _close("losses", ours, expected, rtol=1e-2),
        "resumed": _close("resumed", resumed, ours, rtol=1e-3),
    }


def check_options(device: str) -> Found:
    """Each option of a recipe for speed leaves the losses as they are, up to its rounding."""
    plain = losses(device)
    options: dict[str, tuple[dict[str, Any], float]] = {
        "channels_last": ({"channels_last": True}, 1e-2),
        "tf32": ({"tf32": True}, 1e-2),
        "fused_optimizer": ({"fused_optimizer": True}, 1e-2),
        "grad_checkpointing": ({"grad_checkpointing": True}, 1e-2),
        "bfloat16": ({"amp": "bfloat16"}, 3e-2),
    }
    return {
        name: _close(name, losses(device, **changes), plain, rtol=tolerance)
        for name, (changes, tolerance) in options.items()
    }


def check_peak_memory(device: str) -> Found:
    """The peak of a timed call has what the call allocates; on a CPU there is none."""
    measured = time_call(lambda: torch.zeros(3 << 20, device=device), device, repeats=3)
    assert measured.median_ms > 0
    if torch.device(device).type != "cuda":
        assert measured.peak_bytes is None
        return NEEDS_GPU
    assert measured.peak_bytes is not None
    assert measured.peak_bytes >= 12 << 20, f"12 MiB were allocated: {measured.peak_bytes}"
    return {"peak_bytes": measured.peak_bytes}


def check_activation_memory(device: str) -> Found:
    """Activation checkpointing lowers the peak of a training step."""
    if torch.device(device).type != "cuda":
        return NEEDS_GPU
    whole, checkpointed = (_hungry(device, grad_checkpointing=on)[0] for on in (False, True))
    assert checkpointed < 0.8 * whole, f"{checkpointed} bytes with it, {whole} without"
    return {"whole_bytes": whole, "checkpointed_bytes": checkpointed}


def check_memory_share(device: str) -> Found:
    """A training within a share of the memory goes on in halves, to the same loss."""
    if torch.device(device).type != "cuda":
        return NEEDS_GPU
    whole_bytes, whole = _hungry(device)
    total = torch.cuda.get_device_properties(device).total_memory
    try:
        torch.cuda.set_per_process_memory_fraction(0.8 * whole_bytes / total, device)
        halved_bytes, halved = _hungry(device)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    assert whole.micro_batches == 1, "memory ran out without a limit"
    assert halved.micro_batches == 2, "memory did not run out within a share of it"
    return {
        "whole_bytes": whole_bytes,
        "halved_bytes": halved_bytes,
        "loss": _close("loss", halved.train_loss, whole.train_loss, rtol=1e-2),
    }


def _hungry(device: str, **changes: Any) -> tuple[int, Any]:
    """Peak bytes of an epoch whose activations are large, and the epoch."""
    gc.collect()
    torch.cuda.empty_cache()
    spec = resolve(NetworkSpec.parse(HUNGRY_VIT))
    recipe = replace(RECIPE, epochs=2, batch_size=HUNGRY_BATCH, **changes)
    trainer = Trainer(spec, Synthetic.of(spec, HUNGRY_BATCH, 2), recipe, seed=0, device=device)
    torch.cuda.reset_peak_memory_stats(device)
    epoch = trainer.run_epoch()
    return torch.cuda.max_memory_allocated(device), epoch


CHECKS: dict[str, Callable[[str], Found]] = {
    "families as on a CPU": check_families,
    "fused attention": check_fused_attention,
    "training as on a CPU": check_training,
    "options of a recipe": check_options,
    "peak memory": check_peak_memory,
    "activation checkpointing": check_activation_memory,
    "share of the memory": check_memory_share,
}
