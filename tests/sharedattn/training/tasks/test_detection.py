"""Anchors, losses and boxes of detectors: by hand, and as torchvision's own detector has them."""

from __future__ import annotations

import pytest
import torch
from scenes import write_boxes
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from sharedattn.backbones import build, resolve
from sharedattn.data import DataConfig, open_data
from sharedattn.data.labels import NO_BOX
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec, NetworkSpec
from sharedattn.recipe import RECIPES, Recipe
from sharedattn.training.tasks import detection
from sharedattn.training.tasks.detection import Detection
from sharedattn.training.trainer import Trainer, check_recipe, evaluate

SPEC = resolve(
    NetworkSpec.parse(
        "pvt_v2_b0(anchor_scale=2,head=retinanet,num_classes=2)@32x64: V1 | V1 | V1 | V1"
    )
)
PLAIN = Recipe(epochs=1)


@pytest.fixture(scope="module")
def task() -> Detection:
    torch.manual_seed(0)
    return Detection(build(SPEC))


def targets(*images: list[tuple[float, ...]]) -> torch.Tensor:
    """Targets (B, 3, 6) of the boxes of each image."""
    rows = torch.zeros(len(images), 3, 6)
    rows[..., 4] = NO_BOX
    for b, boxes in enumerate(images):
        for m, box in enumerate(boxes):
            rows[b, m, : len(box)] = torch.tensor(box)
    return rows


def test_anchors_are_torchvisions_at_the_papers_scale() -> None:
    network = build(
        resolve(NetworkSpec.parse("pvt_v2_b0(head=retinanet)@256x384: V1 | V1 | V1 | V1"))
    )
    ours = Detection(network)._anchors(torch.device("cpu"))
    grids = [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
    assert [len(level) for level in ours] == [9 * y * x for y, x in grids]
    sizes = tuple(tuple(s * 2 ** (o / 3) for o in range(3)) for s in (32, 64, 128, 256, 512))
    generator = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
    images = ImageList(torch.zeros(1, 3, 256, 384), [(256, 384)])
    [theirs] = generator(images, [torch.zeros(1, 1, *grid) for grid in grids])
    assert torch.equal(torch.cat(ours), theirs)


def test_anchors_follow_the_outputs_of_the_head(task: Detection) -> None:
    network = build(SPEC).eval()
    num_outputs = network(torch.zeros(1, 3, 32, 64)).shape[1]
    assert num_outputs == sum(map(len, task._anchors(torch.device("cpu"))))
    # The square anchor of 16 pixels about row 1, column 2 of the first level, 8 pixels apart.
    first = task._anchors(torch.device("cpu"))[0].view(4, 8, 3, 3, 4)[1, 2, 1, 0]
    assert first.tolist() == [16 - 8, 8 - 8, 16 + 8, 8 + 8]


def test_losses_by_hand(task: Detection) -> None:
    anchors = torch.cat(task._anchors(torch.device("cpu")))
    box = torch.tensor([20.0, 4.0, 36.0, 20.0])
    overlaps = box_iou(box[None], anchors)[0]
    positive = (overlaps >= 0.5) | (overlaps == overlaps.max())
    ignored = (overlaps >= 0.4) & ~positive
    torch.manual_seed(2)
    outputs = torch.randn(1, len(anchors), 6)
    probability = outputs[0, :, :2].sigmoid()
    truth = torch.zeros(len(anchors), 2)
    truth[positive, 1] = 1.0
    right = torch.where(truth > 0, probability, 1 - probability)
    alpha = torch.where(truth > 0, 0.25, 0.75)
    focal = -alpha * (1 - right) ** 2 * right.log()
    num = positive.sum()
    sizes, centres = anchors[:, 2:] - anchors[:, :2], (anchors[:, 2:] + anchors[:, :2]) / 2
    own_size, own_centre = box[2:] - box[:2], (box[2:] + box[:2]) / 2
    wanted = torch.cat([(own_centre - centres) / sizes, (own_size / sizes).log()], dim=1)
    errors = (outputs[0, :, 2:] - wanted)[positive].abs().sum()
    by_hand = (focal[~ignored].sum() + errors) / num
    found = task.loss(outputs, targets([(*box.tolist(), 1)]), PLAIN)
    assert found.item() == pytest.approx(by_hand.item(), rel=1e-4)
    # A crowd is no object, and images add up.
    none = task.loss(outputs, targets([]), PLAIN)
    assert task.loss(outputs, targets([(*box.tolist(), 1, 1)]), PLAIN) == none
    both = task.loss(outputs.repeat(2, 1, 1), targets([(*box.tolist(), 1)], []), PLAIN)
    assert both.item() == pytest.approx((found + none).item() / 2, rel=1e-5)


def test_boxes_are_decoded_clipped_and_no_two_alike(task: Detection) -> None:
    anchors = torch.cat(task._anchors(torch.device("cpu")))
    outputs = torch.zeros(1, len(anchors), 6)
    outputs[..., :2] = -9.0
    # The square anchor of the second row and third column; its right neighbour is drawn onto it.
    place = (1 * 8 + 2) * 9 + 3
    outputs[0, place, 1], outputs[0, place + 9, 1] = 3.0, 2.0
    outputs[0, place + 9, 2] = -8 / 16
    # The same again as the other class, half a size up: beyond the image's upper edge.
    outputs[0, place, 0] = 1.0
    [found] = task.detections(outputs)
    assert found.labels_N.tolist() == [1, 0]
    assert found.scores_N.tolist() == pytest.approx([0.952574, 0.731059], abs=1e-5)
    assert found.boxes_N4.tolist() == [[8.0, 0.0, 24.0, 16.0]] * 2
    outputs[0, place, 3] = -0.5
    [moved] = task.detections(outputs)
    assert moved.boxes_N4[0].tolist() == [8.0, 0.0, 24.0, 8.0]


def test_a_detector_learns_its_pictures(tmp_path) -> None:
    folder = write_boxes(tmp_path / "made", {"train": 23, "val": 5})
    data = open_data(DataConfig(name=str(folder), image_size=(32, 64), task="detect"))
    recipe = RECIPES["small-detect"].with_changes(epochs=6, batch_size=4, loader_workers=0)
    training = Trainer(SPEC, data, recipe, seed=1)
    before = evaluate(training.network, data, "validation", batch_size=5)
    while not training.finished:
        training.run_epoch()
    metrics = training.result().metrics
    assert before.quality < 0.02 and metrics.quality > before.quality + 0.05
    assert metrics.loss < before.loss
    assert list(metrics.to_json()) == ["map50", "loss", "num_images", "map"]
    assert 0.0 <= metrics.further["map"] <= metrics.quality


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_smoothing": 0.1}, "`label_smoothing` of the recipe is 0.1, but the focal"),
        ({"mixup": 0.1}, "`mixup` of the recipe is 0.1, which changes images without"),
    ],
)
def test_recipes_that_do_not_serve_detectors(tmp_path, changes: dict, message: str) -> None:
    data = open_data(
        DataConfig(name=str(write_boxes(tmp_path / "m")), image_size=(32, 64), task="detect")
    )
    with pytest.raises(InputError, match=message):
        check_recipe(SPEC, data, Recipe(epochs=1, batch_size=4, **changes))
    with pytest.raises(InputError, match="`distillation` of the recipe is 0.5, but detectors"):
        check_recipe(
            SPEC, data, Recipe(epochs=1, batch_size=4, distillation=0.5), has_teacher=True
        )


def test_without_pycocotools_the_extra_is_named(monkeypatch) -> None:
    network = build(SPEC)
    monkeypatch.setattr(detection, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"install sharedattn\[detect\]"):
        Detection(network)


def test_the_scale_of_anchors_is_part_of_the_spec() -> None:
    text = "pvt_v2_b0(anchor_scale=2.5,head=retinanet,num_classes=7)@64x96"
    backbone = BackboneSpec.parse(text)
    assert str(backbone) == text and backbone.anchor_scale == 2.5
    assert BackboneSpec.from_json(backbone.to_json()) == backbone
    paper = BackboneSpec.parse("pvt_v2_b0(anchor_scale=4,head=retinanet)@64x96")
    assert "anchor" not in str(paper) and "anchor_scale" not in paper.to_json()
    for wrong in ("0", "-1", "big", "true", "1.23456789", "inf"):
        with pytest.raises(InputError, match="`anchor_scale` is .* it is a number above 0"):
            BackboneSpec.parse(f"pvt_v2_b0(anchor_scale={wrong},head=retinanet)")
    with pytest.raises(InputError, match="`anchor_scale` is 2, but a head that is to segment"):
        BackboneSpec.parse("pvt_v2_b0(anchor_scale=2,head=upernet)")
