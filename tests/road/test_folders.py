"""Image folders as people have them: read in the one right way, or refused before any work.

Classes are plain colours with noise, learnt at once: what is read right scores 1.000.
"""

import io
import json
import os
import shutil

import pytest
from colours import COLOURS, picture, put
from commands import refusal, run


def plan(capsys, data, *options):
    """What a search says it would do: its document, and its paragraph."""
    code, out, err = run(
        capsys, "search", "space.yaml", "--data", data, "--recipe", "recipe.yaml",
        "--dry-run", "--json", *options,
    )  # fmt: skip
    assert code == 0, err
    return json.loads(out)["plan"]["data"], " ".join(err.split())


def images(found):
    return {split: part["images"] for split, part in found["splits"].items()}


def refused(capsys, here, data, *options):
    """The one error of a search that begins nothing, and says nothing before it."""
    before = kept(here)
    error = refusal(
        capsys, "search", "space.yaml", "--data", data, "--recipe", "recipe.yaml",
        "--out", here / "out", *options,
    )  # fmt: skip
    assert error.startswith("sharedattn: ")
    assert kept(here) == before
    return error


def kept(here):
    """All files, but for what is remembered of the looks at folders."""
    return sorted(str(p) for p in here.rglob("*") if p.is_file() and "scans" not in p.parts)


# Which splits there are


@pytest.mark.parametrize("names", [("Train", "Val", "Test"), ("TRAINING", "Valid", "Testing")])
def test_splits_are_known_whatever_their_case(capsys, data, names):
    for old, new in zip(("train", "val", "test"), names, strict=True):
        for number, colour in enumerate(COLOURS):
            if old != "train":
                put(data / old / colour, colour, 4, start=1000 + number)
        shutil.move(data / old, data / "x")
        shutil.move(data / "x", data / new)
    found, _ = plan(capsys, data)
    assert images(found) == {"train": 48, "validation": 12, "test": 12}
    assert found["splits"]["validation"]["from"] == f"{names[1]}/"


def test_val_is_validation_and_test_is_cut_and_said(capsys, data):
    for number, colour in enumerate(COLOURS):
        put(data / "val" / colour, colour, 4, start=1000 + number)
    found, said = plan(capsys, data)
    assert images(found) == {"train": 42, "validation": 12, "test": 6}
    assert "train 42 from train/; validation 12 from val/; test 6 from 10% of train/" in said
    found, said = plan(capsys, data, "--test-split", "none")
    assert images(found) == {"train": 48, "validation": 12}
    assert "no test split" in said
    found, _ = plan(capsys, data, "--test-split", 0.25)
    assert images(found) == {"train": 36, "validation": 12, "test": 12}


def test_a_folder_one_level_too_high_is_refused(capsys, here, data):
    (here / "above").mkdir()
    shutil.move(data, here / "above" / "animals")
    assert "give the folder animals itself" in refused(capsys, here, here / "above")


def test_classes_that_hold_splits_are_refused(capsys, here):
    for colour in ("red", "green"):
        for split in ("train", "test"):
            put(here / "data" / colour / split, colour, 4)
    assert "put the splits on top: train/CLASS" in refused(capsys, here, here / "data")


def test_images_beside_the_splits_are_refused_and_other_folders_said(capsys, here, data):
    (data / "annotations").mkdir()
    (data / "annotations" / "boxes.json").write_text("{}")
    found, said = plan(capsys, data)
    assert "annotations/ has no images and was left out" in said
    assert "1 file that is no image left out: 1 .json" in said
    put(data / "evaluation" / "red", "red", 2)
    assert "has evaluation/ with 2 images beside train/" in refused(capsys, here, data)


@pytest.mark.parametrize("option", ["--val-fraction", "--test-split"])
def test_a_share_that_cuts_nothing_is_refused(capsys, here, data, option):
    for split in ("val", "test"):
        for colour in COLOURS:
            put(data / split / colour, colour, 2, start=500)
    assert option in refused(capsys, here, data, option, 0.2)


# Which classes


def test_a_class_has_all_images_below_its_folder(capsys, here):
    for colour in ("red", "green"):
        for year in (2020, 2021):
            put(here / "data" / "train" / colour / str(year), colour, 8, start=year)
    found, _ = plan(capsys, here / "data")
    assert found["classes"] == ["green", "red"]
    assert images(found) == {"train": 24, "validation": 4, "test": 4}


def test_a_vehicle_may_be_a_train(capsys, here):
    for number, name in enumerate(("train", "bus", "car")):
        put(here / "data" / name, list(COLOURS)[number], 10)
    found, _ = plan(capsys, here / "data")
    assert found["classes"] == ["bus", "car", "train"]


def test_names_are_ordered_by_code_point(capsys, here):
    for number, name in enumerate(("b", "A", "a", "10", "2", "01", "1", "é", "²")):
        put(here / "data" / name, list(COLOURS)[number % 3], 4, start=10 * number)
    found, _ = plan(capsys, here / "data")
    assert found["classes"] == ["01", "1", "10", "2", "A", "a", "b", "²", "é"]


def test_the_order_of_classes_may_be_given(capsys, here, data):
    (here / "names.txt").write_text("red\nblue\ngreen\nviolet\n")
    found, said = plan(capsys, data, "--classes", "names.txt")
    assert found["classes"] == ["red", "blue", "green", "violet"]
    assert found["splits"]["train"]["by_class"] == [12, 12, 12, 0]
    assert "1 class without images: violet" in said
    for text, message in (
        ("red\nblue\n", "it does not name green"),
        ("red\nblue\nred\ngreen\n", "names 'red' twice"),
        ("\n", "names no class"),
    ):
        (here / "names.txt").write_text(text)
        assert message in refused(capsys, here, data, "--classes", "names.txt")
    assert "cannot be read" in refused(capsys, here, data, "--classes", "no-such.txt")


def test_hidden_files_and_those_of_systems_are_left_out_and_counted(capsys, data):
    put(data / "train" / ".ipynb_checkpoints", "red", 3)
    put(data / "train" / "__MACOSX", "red", 3)
    (data / "train" / "red" / "._100.png").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    (data / "train" / "red" / "Thumbs.db").write_bytes(b"\xd0\xcf")
    found, said = plan(capsys, data)
    assert found["classes"] == ["blue", "green", "red"]
    assert "4 hidden files left out" in said


@pytest.mark.parametrize("suffix", [".webp", ".bmp", ".JPEG", ".tif", ".gif", ".avif", ".jp2"])
def test_every_format_of_pillow_is_read(capsys, data, suffix):
    shutil.rmtree(data / "train" / "blue")
    put(data / "train" / "blue", "blue", 16, suffix=suffix)
    found, _ = plan(capsys, data)
    assert found["splits"]["train"]["by_class"] == [12, 12, 12]


def test_an_image_without_ending_is_one(capsys, data):
    for path in (data / "train" / "red").iterdir():
        path.rename(path.with_suffix(""))
    (data / "train" / "red" / "notes").write_text("of the photographer")
    found, said = plan(capsys, data)
    assert found["splits"]["train"]["by_class"] == [12, 12, 12]
    assert "1 file that is no image left out: 1 without ending" in said


def test_a_class_whose_format_is_not_read_does_not_vanish(capsys, here, data):
    for path in (data / "train" / "red").iterdir():
        path.rename(path.with_suffix(".heic"))
    said = refused(capsys, here, data)
    assert "no file of the class red can be used: train/red/000.heic is of a format" in said
    put(data / "train" / "red", "red", 3, start=700)
    assert "16 files cannot be used" in refused(capsys, here, data)


def test_a_folder_without_images_is_no_class_and_said(capsys, here, data):
    (data / "train" / "violet").mkdir()
    found, said = plan(capsys, data)
    assert found["num_classes"] == 3
    assert "train/violet/ has no images and is no class" in said
    put(data / "test" / "violet", "red", 2)
    put(data / "test" / "red", "red", 2)
    assert "test/ has violet, of which train/ has no images" in refused(capsys, here, data)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: None, "0 classes with images in the folder: none"),
        (lambda d: put(d, "red", 3), "0 classes with images"),
        (lambda d: put(d / "train" / "red", "red", 9), "1 class with images in train/: red"),
        (lambda d: put(d / "val" / "red", "red", 9), "has val/ and no training split"),
        (lambda d: put(d / "train", "red", 9), "train/ hold images, but no folder a class"),
        (
            lambda d: [put(d / n / c, c, 4) for n in ("train", "Train") for c in ("red", "green")],
            "are both named as the train split",
        ),
    ],
)
def test_folders_that_cannot_be_learnt_from(capsys, here, make, message):
    (here / "data").mkdir()
    make(here / "data")
    assert message in refused(capsys, here, here / "data")


def test_an_empty_test_split_is_refused(capsys, here, data):
    (data / "test").mkdir()
    assert "test/ has no images" in refused(capsys, here, data)


def test_a_small_class_has_its_share_of_every_cut_or_is_named(capsys, here):
    put(here / "data" / "red", "red", 95)
    put(here / "data" / "green", "green", 5)
    found, said = plan(capsys, here / "data")
    assert {s: p["by_class"] for s, p in found["splits"].items()} == {
        "train": [3, 75],
        "validation": [1, 10],
        "test": [1, 10],
    }
    for path in sorted((here / "data" / "green").iterdir())[2:]:
        path.unlink()
    assert "too few training images to give some" in refused(capsys, here, here / "data")


# Links and names


def test_a_link_to_a_folder_above_is_left_out(capsys, data):
    os.symlink(data, data / "train" / "red" / "all")
    found, said = plan(capsys, data)
    assert images(found) == {"train": 36, "validation": 6, "test": 6}
    assert "train/red/all links to a folder above it and was left out" in said


def test_a_folder_that_is_linked_twice_is_refused(capsys, here, data):
    os.symlink(data / "train", data / "val")
    assert "val and train of" in refused(capsys, here, data)


def test_links_to_files_and_folders_elsewhere_are_followed(capsys, here, data):
    shutil.move(data / "train" / "red", here / "store")
    os.symlink(here / "store", data / "train" / "red")
    for path in (data / "train" / "blue").iterdir():
        shutil.move(path, here / path.name)
        os.symlink(here / path.name, path)
    found, _ = plan(capsys, data)
    assert found["splits"]["train"]["by_class"] == [12, 12, 12]


def test_an_image_that_is_linked_into_another_split_is_named(capsys, here, data):
    put(data / "val" / "red", "red", 4, start=900)
    os.symlink(data / "val" / "red" / "900.png", data / "train" / "red" / "linked.png")
    os.link(data / "val" / "red" / "901.png", data / "train" / "red" / "same.png")
    said = refused(capsys, here, data)
    assert "2 files cannot be used" in said
    assert "val/red/900.png is the same file as train/red/linked.png, by a link" in said
    assert "val/red/901.png is the same file as train/red/same.png, by a link" in said


def test_a_test_folder_without_labels_may_be_left_alone(capsys, here, data):
    (data / "test").mkdir()
    picture(COLOURS["red"], 1).save(data / "test" / "x.png")
    assert "test/x.png lies in no class's folder" in refused(capsys, here, data)
    found, said = plan(capsys, data, "--test-split", "none")
    assert images(found) == {"train": 42, "validation": 6}
    assert "test/ was left out, as no test split is asked for" in said


def test_a_folder_of_loose_images_says_where_they_lie(capsys, here):
    put(here / "data", "red", 3)
    assert "(3 images in the folder itself, in no class's folder)" in refused(
        capsys, here, here / "data"
    )
    put(here / "up" / "data" / "red", "red", 3)
    put(here / "up" / "data" / "green", "green", 3)
    said = refused(capsys, here, here / "up")
    assert "(it holds green, red; if those are the classes, name data itself)" in said


def test_a_link_to_nothing_is_named(capsys, here, data):
    os.symlink("/nowhere/x.png", data / "train" / "red" / "x.png")
    assert "train/red/x.png is a link to nothing" in refused(capsys, here, data)


def test_names_that_are_no_utf_8(capsys, here, data):
    red = data / "train" / "red"
    os.rename(red / "000.png", os.fsencode(red) + b"/caf\xe9.png")
    found, _ = plan(capsys, data)
    assert images(found) == {"train": 36, "validation": 6, "test": 6}
    os.rename(red, os.fsencode(data / "train") + b"/caf\xe9")
    assert r"the class caf\xe9 has a name that is no UTF-8" in refused(capsys, here, data)


# Files that cannot be used


def half_a_jpeg():
    file = io.BytesIO()
    picture(COLOURS["red"], 5, size=96).save(file, "JPEG", quality=95)
    return file.getvalue()[: len(file.getvalue()) // 2]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.png", b"", "is no image"),
        ("x.jpg", half_a_jpeg(), "truncated"),
        ("x.png", b"<html>404</html>", "is no image"),
        ("x.gif", b"GIF89a\x10\0\x10\0\xf7\0\0", ""),
    ],
)
def test_an_image_that_cannot_be_read_is_named_and_never_replaced(
    capsys, here, data, name, content, reason
):
    (data / "train" / "red" / name).write_bytes(content)
    said = refused(capsys, here, data)
    assert f"1 file cannot be used: train/red/{name} " in said
    assert reason in said
    assert "--on-bad-image skip" in said
    found, said = plan(capsys, data, "--on-bad-image", "skip")
    assert images(found) == {"train": 36, "validation": 6, "test": 6}
    assert f"1 image left out that cannot be used, such as train/red/{name}" in said


def test_a_class_of_which_nothing_is_left_is_refused_all_the_same(capsys, here, data):
    for path in (data / "train" / "red").iterdir():
        path.write_bytes(b"")
    assert "16 files cannot be used" in refused(capsys, here, data)
    said = refused(capsys, here, data, "--on-bad-image", "skip")
    assert "no file of the class red can be used" in said


def test_an_image_outside_of_every_class_is_named(capsys, here, data):
    picture(COLOURS["red"], 1).save(data / "train" / "x.png")
    assert "train/x.png lies in no class's folder" in refused(capsys, here, data)
    assert images(plan(capsys, data, "--on-bad-image", "skip")[0])["train"] == 36


def test_what_was_seen_is_remembered_until_a_file_changes(capsys, data, here, monkeypatch):
    old = 1_600_000_000
    for path in data.rglob("*.png"):
        os.utime(path, (old, old))
    arguments = ("--data", data, "--recipe", "recipe.yaml", "--trials", 1, "--epochs", 1)
    code, _, err = run(capsys, "search", "space.yaml", *arguments, "--confirm-seeds", 1)
    assert code == 0, err
    from sharedattn.data.folders import scan

    looked = []
    monkeypatch.setattr(scan, "_decode", lambda path: looked.append(path.name) or "")
    changed = data / "train" / "red" / "000.png"
    picture(COLOURS["red"], 999).save(changed)
    plan(capsys, data)
    assert looked == ["000.png"]
    # A dry run remembers nothing itself.
    plan(capsys, data)
    assert looked == ["000.png"] * 2
