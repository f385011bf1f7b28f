"""Report the progress of a training or a scoring, about once a second.

Reporting is cheap and has no side effects: between messages only a clock is read, the loss is only
fetched from the device when a message is due, and no random number is drawn. A lost message does
no harm, since the next one includes its content.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch

EVERY_S = 1.0  # least time between two messages
_WINDOW = 20  # messages over which the speed is measured


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingProgress:
    """Progress of a training.

    Attributes:
        epoch: number of the running epoch, from 1.
        epochs: number of epochs of the training.
        step: number of finished steps of the epoch.
        steps: number of steps per epoch.
        images_per_s: training images per second over all processes of the training, or None if
            not known yet.
        loss: mean training loss over the epoch so far, or None before its first step.
        left_s: estimated seconds to the end of the last epoch at this speed, without evaluations,
            or None if not known yet.
        is_validating: whether the epoch is done and being evaluated.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    images_per_s: float | None
    loss: float | None
    left_s: float | None
    is_validating: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringProgress:
    """Progress of scoring placements by shared weights.

    Attributes:
        placements: number of placements that are scored together.
        share: share of the work that is done, 0 to 1.
        left_s: estimated seconds left at this speed, or None if not known yet.
    """

    placements: int
    share: float
    left_s: float | None


WorkProgress = TrainingProgress | ScoringProgress
OnProgress = Callable[[WorkProgress], None]


class TrainingMeter:
    """Reports a training's progress: once in `EVERY_S`, and when validation begins.

    Args:
        on_progress: callback.
        epochs: number of epochs of the training.
        steps: number of steps per epoch.
        batch_size: number of images per step, over all processes.
    """

    def __init__(
        self, on_progress: OnProgress, *, epochs: int, steps: int, batch_size: int
    ) -> None:
        self._on_progress = on_progress
        self._epochs = epochs
        self._steps = steps
        self._batch_size = batch_size
        self._epoch = self._step = self._steps_here = 0
        self._told_at = self._paused_at = time.perf_counter()
        self._pauses_s = self._paused_at  # so that the training's clock starts at 0
        self._window: deque[tuple[float, int]] = deque([(0.0, 0)], maxlen=_WINDOW)

    def begin_epoch(self, epoch: int) -> None:
        """Record the start of an epoch; `epoch` counts those finished before."""
        self._pauses_s += time.perf_counter() - self._paused_at
        self._epoch, self._step = epoch, 0

    def count_step(self, loss_sum: torch.Tensor) -> None:
        """Record a step; `loss_sum`, a scalar, sums the losses of the epoch's steps."""
        self._step += 1
        self._steps_here += 1
        if time.perf_counter() - self._told_at >= EVERY_S:
            # Fetching the loss waits for the device, so read the clock afterwards.
            self._tell(loss_sum.item() / self._step)

    def end_epoch(self, loss: float, *, validates: bool) -> None:
        """Record the end of an epoch's steps, with their mean loss, before any evaluation."""
        if validates:
            self._tell(loss, is_validating=True)
        self._paused_at = time.perf_counter()

    def _tell(self, loss: float, *, is_validating: bool = False) -> None:
        now = time.perf_counter()
        self._told_at = now
        clock = now - self._pauses_s
        since, steps_then = self._window[0]
        self._window.append((clock, self._steps_here))
        steps_per_s = (self._steps_here - steps_then) / (clock - since) if clock > since else 0.0
        rest = (self._epochs - self._epoch) * self._steps - self._step
        self._on_progress(
            TrainingProgress(
                epoch=self._epoch + 1,
                epochs=self._epochs,
                step=self._step,
                steps=self._steps,
                images_per_s=steps_per_s * self._batch_size if steps_per_s else None,
                loss=loss,
                left_s=rest / steps_per_s if steps_per_s else None,
                is_validating=is_validating,
            )
        )


class ScoringMeter:
    """Reports the progress of a scoring, once in `EVERY_S`.

    Args:
        on_progress: callback.
        placements: number of placements to score.
    """

    def __init__(self, on_progress: OnProgress, *, placements: int) -> None:
        self._on_progress = on_progress
        self._placements = placements
        self._began_at = self._told_at = time.perf_counter()

    def tell(self, share: float) -> None:
        """Record the share of the work that is done, 0 to 1."""
        now = time.perf_counter()
        if now - self._told_at < EVERY_S:
            return
        self._told_at = now
        left_s = (now - self._began_at) * (1.0 - share) / share if share > 0 else None
        self._on_progress(ScoringProgress(placements=self._placements, share=share, left_s=left_s))
