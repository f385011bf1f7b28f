"""Losses and mean intersection over union of segmenters, by hand."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from scenes import write_masks

from sharedattn.backbones import build, resolve
from sharedattn.data import DataConfig, open_data
from sharedattn.distributed import Rank
from sharedattn.errors import InputError
from sharedattn.placement import NetworkSpec
from sharedattn.recipe import RECIPES, Recipe
from sharedattn.training.tasks.interface import Metrics
from sharedattn.training.tasks.registry import task_training
from sharedattn.training.tasks.segmentation import MeanIoUAccumulator, Segmentation
from sharedattn.training.trainer import Trainer, check_fit, evaluate, initialise

SPEC = resolve(
    NetworkSpec.parse(
        "vit(depth=2,embed_dim=22,head=eanet,num_classes=3,num_heads=2,patch_size=2)@22x34: V2"
    )
)


def logits_of(classes: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Logits (1, K, Y, X) that predict classes (Y, X)."""
    return 5.0 * torch.nn.functional.one_hot(classes, num_classes).permute(2, 0, 1)[None].float()


def test_mean_iou_of_a_confusion_solved_by_hand() -> None:
    # Class 0: 3 of truth, 4 predicted, 2 both: 2 / 5. Class 1: 2, 1, 1: 1 / 2. Class 2: in no
    # prediction, one pixel of truth: 0. Class 3: nowhere. One pixel is ignored.
    mask = torch.tensor([[0, 0, 0, 255], [1, 1, 2, 4]])
    predicted = torch.tensor([[0, 0, 4, 4], [1, 0, 0, 4]])
    tally = MeanIoUAccumulator(5, torch.device("cpu"))
    tally.add(logits_of(predicted, 5), mask[None])
    # Class 4: one of truth, two predicted (the ignored one does not count), one both: 1 / 2.
    metrics = tally.metrics("validation")
    assert metrics.quality == pytest.approx((2 / 5 + 1 / 2 + 0 + 1 / 2) / 4)
    assert (metrics.num_images, metrics.name) == (1, "miou")
    wrong = math.log(math.exp(5) + 4)
    right = wrong - 5.0
    # 4 right and 3 wrong of 8 pixels.
    assert metrics.loss == pytest.approx((4 * right + 3 * wrong) / 8)


def test_pixels_of_all_images_count_together() -> None:
    masks = torch.tensor([[[0, 0, 0, 0]], [[1, 1, 0, 0]]])
    predicted = torch.tensor([[[0, 0, 0, 0]], [[1, 0, 0, 0]]])
    tally = MeanIoUAccumulator(2, torch.device("cpu"))
    for mask, classes in zip(masks, predicted, strict=True):
        tally.add(logits_of(classes, 2), mask[None])
    assert tally.metrics("validation").quality == pytest.approx((6 / 7 + 1 / 2) / 2)


def test_an_image_without_labels_is_no_division_by_zero() -> None:
    network = build(SPEC)
    task = Segmentation(network)
    logits = torch.randn(2, 3, 11, 17, requires_grad=True)
    masks = torch.full((2, 22, 34), 255, dtype=torch.uint8)
    loss = task.loss(logits, masks, Recipe(epochs=1, label_smoothing=0.1))
    loss.backward()
    assert loss.item() == 0.0 and not logits.grad.any()


def test_the_loss_is_the_sum_over_labelled_pixels_by_the_number_of_all() -> None:
    torch.manual_seed(3)
    task = Segmentation(build(SPEC))
    logits = torch.randn(2, 3, 5, 7)
    masks = torch.randint(3, (2, 5, 7))
    masks[0, 2] = 255
    log_probabilities = logits.log_softmax(dim=1)
    by_hand = 0.0
    for b in range(2):
        for y in range(5):
            for x in range(7):
                if masks[b, y, x] != 255:
                    by_hand -= log_probabilities[b, masks[b, y, x], y, x].item() / 70
    assert task.loss(logits, masks, Recipe(epochs=1)).item() == pytest.approx(by_hand, rel=1e-5)
    # Parts of a batch add up to the whole.
    halves = [task.loss(logits[i : i + 1], masks[i : i + 1], Recipe(epochs=1)) for i in (0, 1)]
    assert (sum(halves) / 2).item() == pytest.approx(by_hand, rel=1e-5)


def test_a_segmenter_learns_and_goes_on_from_a_checkpoint(tmp_path) -> None:
    data = open_data(
        DataConfig(name=str(write_masks(tmp_path / "made")), image_size=(22, 34), task="segment")
    )
    recipe = RECIPES["small-segment"].with_changes(epochs=4, batch_size=6, loader_workers=0)
    trainer = Trainer(SPEC, data, recipe, seed=1)
    trainer.run_epoch()
    state = copy.deepcopy(trainer.state_dict())
    while not trainer.finished:
        trainer.run_epoch()
    training = trainer.result()
    assert training.metrics.quality > 0.6
    resumed = Trainer(SPEC, data, recipe, seed=1)
    resumed.load_state_dict(state)
    while not resumed.finished:
        resumed.run_epoch()
    assert resumed.curve == trainer.curve
    again = evaluate(training.network, data, "validation", batch_size=6)
    assert again == training.metrics == Metrics.from_json(training.metrics.to_json())
    assert set(again.to_json()) == {"miou", "loss", "num_images"}


def test_processes_of_a_group_sum_their_pixels(monkeypatch) -> None:
    tallies = [MeanIoUAccumulator(2, torch.device("cpu")) for _ in range(2)]
    masks = torch.tensor([[[0, 0, 0, 0]], [[1, 1, 0, 0]]])
    predicted = torch.tensor([[[0, 0, 0, 0]], [[1, 0, 0, 0]]])
    for tally, mask, classes in zip(tallies, masks, predicted, strict=True):
        tally.add(logits_of(classes, 2), mask[None])
    others = iter([tallies[1]._sums, tallies[1]._confusion_KK])
    monkeypatch.setattr(Rank, "sum_", lambda _, tensor: tensor.add_(next(others)))
    metrics = tallies[0].metrics("validation", Rank(0, 2))
    assert metrics.quality == pytest.approx((6 / 7 + 1 / 2) / 2)
    assert metrics.num_images == 2


def test_a_head_keeps_its_own_initialisation() -> None:
    torch.manual_seed(0)
    network = build(resolve(NetworkSpec.parse("pvt_v2_b0(head=retinanet)@64x96: V1|V1|V1|V1")))
    initialise(network, "torch")
    bias = network.pyramid_head.heads.classification_head.cls_logits.bias
    torch.testing.assert_close(bias.sigmoid(), torch.full_like(bias, 0.01))


def test_data_and_network_are_of_one_task(tmp_path) -> None:
    data = open_data(
        DataConfig(name=str(write_masks(tmp_path / "made")), image_size=(22, 34), task="segment")
    )
    with pytest.raises(InputError, match="`head` .* is classify, which is to classify, but"):
        check_fit(NetworkSpec.parse("vit(num_classes=3)@22x34: V1").backbone, data)
    assert isinstance(task_training(build(SPEC)), Segmentation)
