"""Folders in COCO's format: layouts, boxes under what is done to images, and bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from scenes import HEIGHT, WIDTH, write_boxes

from sharedattn.data import DataConfig, reopen_data
from sharedattn.data.dense import BoxLabels
from sharedattn.data.folders.boxes import Boxes
from sharedattn.errors import InputError
from sharedattn.image_size import ImageSize
from sharedattn.recipe import Recipe
from sharedattn.search.data_plan import DataOptions, look_at

CPU = torch.device("cpu")
Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_boxes(tmp_path / "made")


def config(folder: Path, **changes: object) -> DataConfig:
    own = {"name": str(folder), "image_size": (HEIGHT, WIDTH), "task": "detect"}
    return DataConfig(**{**own, **changes})


def changed(folder: Path, split: str, change: Change) -> None:
    path = folder / "annotations" / f"instances_{split}2017.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_boxes_as_they_are(folder: Path) -> None:
    data = reopen_data(config(folder))
    assert data.class_names == ("red", "blue")
    found = {split: data.num_images(split) for split in ("train", "validation", "test")}
    assert found == {"train": 23, "validation": 11, "test": 7}
    document = json.loads((folder / "annotations" / "instances_val2017.json").read_text())
    batches = data.eval_batches("validation", batch_size=4, device=CPU)
    rows = [row for _, batch in batches for row in batch]
    for image, rows_M6 in zip(document["images"], rows, strict=True):
        own = [a for a in document["annotations"] if a["image_id"] == image["id"]]
        rows_N6 = rows_M6[rows_M6[:, 4] >= 0]
        assert len(rows_N6) == len(own)
        for row, annotation in zip(rows_N6.tolist(), own, strict=True):
            x, y, w, h = annotation["bbox"]
            label = {3: 0, 7: 1}[annotation["category_id"]]
            assert row == [x, y, x + w, y + h, label, 0.0]
    assert reopen_data(DataConfig.from_json(data.config.to_json())).fingerprint == data.fingerprint


@pytest.mark.parametrize("inside", [False, True])
def test_plain_names_images_inside_and_cut_splits(tmp_path: Path, inside: bool) -> None:
    folder = write_boxes(tmp_path / "made", {"train": 23}, suffix="")
    if inside:
        (folder / "images").mkdir()
        (folder / "train").rename(folder / "images" / "train")
    data = reopen_data(config(folder, val_fraction=0.2, test_fraction=0.1))
    assert [data.num_images(s) for s in ("train", "validation", "test")] == [16, 5, 2]


def test_boxes_follow_resizes_flips_and_crops() -> None:
    kind, size = BoxLabels(), ImageSize(20, 60)
    label = Boxes((30, 40), torch.tensor([[3.0, 8, 9, 20, 1, 0], [20, 30, 30, 40, 0, 1]]).numpy())
    whole = kind.resized(label, (0, 0, 30, 40), size)
    assert whole.rows.tolist() == [[6, 4, 18, 10, 1, 0], [40, 15, 60, 20, 0, 1]]
    assert kind.flipped(whole).rows.tolist() == [[42, 4, 54, 10, 1, 0], [0, 15, 20, 20, 0, 1]]
    # Columns 0 to 24 and rows 10 to 40: the second's centre, (25, 35), lies outside.
    part = kind.resized(label, (0, 10, 24, 40), size)
    assert part.rows[0].tolist() == pytest.approx([7.5, 0, 22.5, 20 / 3, 1, 0])
    assert len(part.rows) == 1
    joined = kind.joined([whole, part, Boxes((60, 20), label.rows[:0])])
    assert joined.shape == (3, 2, 6) and joined[:, :, 4].tolist() == [[1, 0], [1, -1], [-1, -1]]


def test_flips_go_together(folder: Path) -> None:
    data = reopen_data(config(folder))
    found = []
    for hflip in (0.0, 1.0):
        recipe = Recipe(epochs=1, batch_size=23, loader_workers=0, hflip=hflip)
        found.append(next(iter(data.train_batches(recipe, seed=0, epoch=0, device=CPU))))
    (images, boxes), (flipped, turned) = found
    assert torch.equal(flipped, images.flip(-1))
    is_box = boxes[..., 4] >= 0
    assert torch.equal(turned[is_box][:, 0], WIDTH - boxes[is_box][:, 2])


def with_box(box: object, place: int = 0) -> Change:
    return lambda document: document["annotations"][place].update(bbox=box)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([3, 4, 0, 5], r"000.png  annotation 1000: the box \[3, 4, 0, 5\] has no area"),
        ([30, 4, 6, 5], "leaves the image of 34 x 22 pixels"),
        ([-2, 4, 6, 5], "leaves the image"),
        ([3, 4, 5], "`bbox` is .* not .x, y, width, height"),
    ],
)
def test_bad_boxes_are_named(folder: Path, box: object, message: str) -> None:
    changed(folder, "train", with_box(box))
    with pytest.raises(InputError, match="1 file cannot be used:\n  train2017/000.png"):
        reopen_data(config(folder))
    with pytest.raises(InputError, match=message):
        look_at(config(folder), DataOptions(), None)
    skipped = look_at(config(folder), DataOptions(on_bad_image="skip"), None)
    assert reopen_data(skipped).num_images("train") == 22


def test_a_box_may_leave_its_image_by_a_pixels_rounding(folder: Path) -> None:
    changed(folder, "val", with_box([30, 15, 4.5, 7.3]))
    data = reopen_data(config(folder))
    _, rows = next(iter(data.eval_batches("validation", batch_size=1, device=CPU)))
    assert rows[0, 0, :4].tolist() == [30.0, 15.0, 34.0, 22.0]


def test_missing_images_and_other_sizes(folder: Path) -> None:
    (folder / "val2017" / "003.png").unlink()
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(folder / "train2017" / "004.png")
    with pytest.raises(InputError) as caught:
        look_at(config(folder), DataOptions(), None)
    text = str(caught.value)
    assert "2 files cannot be used" in text
    assert "val2017/003.png  is named by annotations/instances_val2017.json, but is not" in text
    assert "train2017/004.png  has 34 x 23 pixels (width x height), its annotation" in text


def strange_category(document: dict[str, Any]) -> None:
    document["categories"].append({"id": 9, "name": "green"})
    document["annotations"][0]["category_id"] = 9


def other_name(document: dict[str, Any]) -> None:
    document["categories"][0]["name"] = "green"


def strange_image(document: dict[str, Any]) -> None:
    document["annotations"][0]["image_id"] = 5


def no_boxes(document: dict[str, Any]) -> None:
    document["annotations"] = []


def outside(document: dict[str, Any]) -> None:
    document["images"][0]["file_name"] = "../../secret.png"


def not_coco(document: dict[str, Any]) -> None:
    del document["categories"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (strange_category, r"instances_val2017.json has 1 boxes of the category 9 \(green\)"),
        (other_name, "the category 7 is 'green' in .*val2017.json and 'blue' in .*train2017"),
        (strange_image, "annotates 1 images that it does not list, the first with the id 5"),
        (no_boxes, "the validation split of .* has no box"),
        (outside, "names the image '../../secret.png'; give paths below val2017/"),
        (not_coco, "is not in COCO's format, with images, annotations and categories"),
    ],
)
def test_annotation_files_that_are_refused(folder: Path, change: Change, message: str) -> None:
    changed(folder, "val", change)
    with pytest.raises(InputError, match=message):
        reopen_data(config(folder))


def test_an_annotation_file_that_is_a_list_is_refused(folder: Path) -> None:
    (folder / "annotations" / "instances_val2017.json").write_text("[]")
    with pytest.raises(InputError, match="it holds no object, with images, .* but a JSON list"):
        reopen_data(config(folder))


def test_folders_of_another_layout(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no annotations/.*; to detect, it is to hold annot"):
        reopen_data(config(tmp_path))
    first = folder / "annotations" / "instances_train2017.json"
    (folder / "annotations" / "instances_train2014.json").write_bytes(first.read_bytes())
    with pytest.raises(InputError, match="are both of the train split; take one of them out"):
        reopen_data(config(folder))
    (folder / "annotations" / "instances_train2014.json").unlink()
    with pytest.raises(InputError, match="`--classes` orders the classes of folders"):
        reopen_data(config(folder, classes=("a", "b")))
    (folder / "train2017").rename(folder / "elsewhere")
    with pytest.raises(InputError, match="no folder train2017/ or images/train2017/"):
        reopen_data(config(folder))
