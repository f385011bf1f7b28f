"""A tiny network that predicts noise, until it is told otherwise by weights of its own."""

from __future__ import annotations

from collections.abc import Collection
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from sharedattn.image_size import ImageSize
from sharedattn.networks.network import RunResult
from sharedattn.placement import BackboneSpec
from sharedattn.training.tasks.diffusion import NUM_STEPS


class TinyDenoiser(nn.Module):
    """Two convolutions, the second on what the first gives, scaled by the step.

    Args:
        in_chans: channels of images.
        side: pixels on a side.
    """

    def __init__(self, in_chans: int = 1, side: int = 16) -> None:
        super().__init__()
        self.backbone = BackboneSpec(name="tiny", in_chans=in_chans, num_classes=1, head="noise")
        self.shape = SimpleNamespace(image_size=ImageSize(side, side))
        self.grad_checkpointing = self.compile_layers = False
        self.first = nn.Conv2d(in_chans, 7, 3, padding=1)
        self.second = nn.Conv2d(7, in_chans, 3, padding=1)

    def run(
        self,
        noisy_BCYX: Tensor,
        steps_B: Tensor,
        placement: object = None,
        *,
        collect: Collection[str] = (),
    ) -> RunResult:
        share_B111 = (steps_B / NUM_STEPS)[:, None, None, None]
        tokens = torch.tanh(self.first(noisy_BCYX) + share_B111)
        return RunResult(logits=self.second(tokens), tokens=tokens)

    def forward(self, noisy_BCYX: Tensor, steps_B: Tensor, placement: object = None) -> Tensor:
        return self.run(noisy_BCYX, steps_B, placement).logits
