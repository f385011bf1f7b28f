"""Image data on disk, through timm's own loading: splits, cuts, fingerprints, augmentation."""

import hashlib
import itertools
import pickle
import random
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision.datasets import CIFAR10, MNIST

from sharedattn.data import DataConfig, open_data
from sharedattn.data.folders.decode import ImageReadError
from sharedattn.data.images import ImageData, KeptImages
from sharedattn.data.named import torch_folder
from sharedattn.data.pixels import PixelChanges
from sharedattn.data.samples import Part
from sharedattn.distributed import ALONE, Rank
from sharedattn.errors import InputError
from sharedattn.recipe import Recipe

CPU = torch.device("cpu")
CLASSES = ("ant", "bee", "cow")


def write_images(folder, per_class, seed=0):
    rng = np.random.default_rng(seed)
    for i, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for j in range(per_class):
            pixels = rng.integers(0, 80, (13, 11, 3)) + 80 * np.eye(3, dtype=int)[i]
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{j}.png")


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / "animals" / "train", 10)
    write_images(tmp_path / "animals" / "val", 3, seed=1)
    return tmp_path / "animals"


def config(folder, **changes):
    return DataConfig(**{"name": str(folder), "image_size": 8, "val_fraction": 0.2, **changes})


def test_val_is_validation_and_test_is_cut_from_train(folder):
    data = ImageData(config(folder))
    assert (data.num_classes, data.image_size, data.in_chans) == (3, (8, 8), 3)
    assert [data.num_images(s) for s in ("train", "validation", "test")] == [24, 9, 6]
    assert data.origins == {
        "train": "train/",
        "validation": "val/",
        "test": "20% of train/",
    }


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_rectangular_images_are_evaluated_as_timm_does(folder, crop_mode):
    data = ImageData(config(folder, image_size=(7, 17), pixels=PixelChanges(crop_mode=crop_mode)))
    assert data.identity["transform"]["image_size"] == [7, 17]
    transform = create_transform(
        (3, 7, 17),
        crop_pct=data.pixels.crop_pct,
        crop_mode=crop_mode,
        interpolation="bicubic",
        mean=data.pixels.mean,
        std=data.pixels.std,
    )
    [(images, labels)] = data.eval_batches("validation", batch_size=9, device=CPU)
    files = sorted((folder / "val").glob("*/*.png"))
    assert images.shape == (9, 3, 7, 17) and labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    expected = torch.stack([transform(Image.open(file)) for file in files])
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)


def test_crops_of_rectangular_images_keep_their_shape(tmp_path):
    """An image of the network's size, cropped whole, comes as it is; a part of it is as wide."""
    rng = np.random.default_rng(3)
    for split, name in itertools.product(("train", "val"), ("ant", "bee")):
        (tmp_path / split / name).mkdir(parents=True)
        pixels = rng.integers(0, 256, (14, 34, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / split / name / "0.png")
    data = ImageData(config(tmp_path, image_size=(14, 34), test_fraction=0.0))
    recipe = Recipe(epochs=1, batch_size=2, crop_scale_min=1.0, hflip=0.0, warmup_epochs=0)
    [(images, labels)] = data.train_batches(recipe, seed=0, epoch=0, device=CPU)
    files = [tmp_path / "train" / ("ant", "bee")[label] / "0.png" for label in labels]
    found = images * torch.tensor(data.pixels.std)[:, None, None]
    found += torch.tensor(data.pixels.mean)[:, None, None]
    pixels = torch.stack([torch.from_numpy(np.array(Image.open(file))) for file in files])
    torch.testing.assert_close(found * 255, pixels.permute(0, 3, 1, 2).float(), rtol=0, atol=1e-3)
    crop = data._train_transform(replace(recipe, crop_scale_min=0.2)).transforms[0]
    assert crop.ratio == pytest.approx((3 / 4 * 34 / 14, 4 / 3 * 34 / 14))


def test_of_train_and_test_validation_is_cut_from_train(folder):
    shutil.move(folder / "val", folder / "test")
    data = ImageData(config(folder))
    assert [data.num_images(s) for s in ("train", "validation", "test")] == [24, 6, 9]


def test_the_test_split_is_cut_as_asked_or_left_out(folder):
    assert ImageData(config(folder, test_fraction=0.4)).class_counts("test") == (4, 4, 4)
    none = ImageData(config(folder, test_fraction=0.0))
    assert [none.num_images(s) for s in ("train", "validation", "test")] == [30, 9, 0]
    assert list(none.eval_batches("test", batch_size=4, device=CPU)) == []
    shutil.move(folder / "val", folder / "test")
    with pytest.raises(InputError, match="`--test-split` cuts a test split .* the data has one"):
        ImageData(config(folder, test_fraction=0.4))


def test_three_splits_are_taken_as_they_are(folder):
    write_images(folder / "test", 2, seed=2)
    data = ImageData(config(folder))
    assert [data.num_images(s) for s in ("train", "validation", "test")] == [30, 9, 6]


def test_one_folder_of_classes_is_cut_in_three(folder):
    data = ImageData(config(folder / "train"))
    assert [data.num_images(s) for s in ("train", "validation", "test")] == [18, 6, 6]


def test_the_cut_is_disjoint_seeded_and_part_of_the_fingerprint(folder):
    one, same, other = (ImageData(config(folder, split_seed=s)) for s in (0, 0, 1))
    cuts = [
        {s: tuple(data._parts[s].indices) for s in ("train", "test")}
        for data in (one, same, other)
    ]
    assert cuts[0] == cuts[1] != cuts[2]
    assert sorted(cuts[0]["train"] + cuts[0]["test"]) == list(range(30))
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_the_fingerprint_follows_the_contents_and_the_transform(folder):
    before = ImageData(config(folder)).fingerprint
    assert ImageData(config(folder, image_size=9)).fingerprint != before
    path = folder / "train" / "ant" / "0.png"
    size = path.stat().st_size
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert path.stat().st_size == size
    assert ImageData(config(folder)).fingerprint != before


def test_evaluation_is_fixed_and_training_is_seeded(folder):
    data = ImageData(config(folder))
    recipe = Recipe(epochs=1, batch_size=5, hflip=0.5, crop_scale_min=0.3, random_erasing=0.5)

    def images(batches):
        return torch.cat([images for images, _ in batches])

    def train(seed, epoch):
        return images(data.train_batches(recipe, seed=seed, epoch=epoch, device=CPU))

    assert train(1, 0).shape == (20, 3, 8, 8)
    assert torch.equal(train(1, 0), train(1, 0))
    assert not torch.equal(train(1, 0), train(1, 1))
    assert not torch.equal(train(1, 0), train(2, 0))
    evaluated = [images(data.eval_batches("validation", batch_size=b, device=CPU)) for b in (4, 6)]
    assert torch.equal(*evaluated)


def test_labels_are_those_of_the_folders(folder):
    data = ImageData(config(folder))
    images, labels = next(iter(data.eval_batches("validation", batch_size=9, device=CPU)))
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    # Each class has a brighter channel of its own.
    assert torch.equal(images.mean((2, 3)).argmax(1), labels)


def test_some_images_of_a_split_are_of_all_its_classes(folder):
    data = ImageData(config(folder))
    every, _ = next(iter(data.eval_batches("validation", batch_size=9, device=CPU)))
    some = list(data.eval_batches("validation", batch_size=2, device=CPU, at_most=4))
    assert [labels.tolist() for _, labels in some] == [[0, 0], [1, 2]]
    assert torch.equal(torch.cat([images for images, _ in some]), every[[0, 2, 4, 6]])


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_without_a_class_keeps_the_labels_of_train(folder, split):
    shutil.move(folder / "val", folder / split)
    shutil.rmtree(folder / split / "ant")
    data = ImageData(config(folder))
    given = "validation" if split == "val" else "test"
    assert data.num_images(given) == 6
    images, labels = next(iter(data.eval_batches(given, batch_size=6, device=CPU)))
    assert labels.tolist() == [1, 1, 1, 2, 2, 2]
    assert torch.equal(images.mean((2, 3)).argmax(1), labels)


def test_a_class_that_train_lacks_is_refused(folder):
    shutil.rmtree(folder / "train" / "bee")
    with pytest.raises(
        InputError, match="`--data`: val/ has bee, of which train/ has no images; add"
    ):
        ImageData(config(folder))


def test_splits_without_a_training_split_are_not_trained_on(folder):
    write_images(folder / "test", 2, seed=2)
    shutil.rmtree(folder / "train")
    with pytest.raises(
        InputError, match="has val/, test/ and no training split; add a folder train/"
    ):
        ImageData(config(folder))


def test_a_moved_copy_has_the_same_fingerprint(folder, tmp_path):
    before = ImageData(config(folder))
    copy = shutil.copytree(folder, tmp_path / "elsewhere" / "renamed")
    after = ImageData(config(copy))
    assert (before.name, after.name) == ("animals", "renamed")
    assert after.identity == before.identity


@pytest.mark.parametrize("mixing", [{}, {"mixup": 0.8, "cutmix": 1.0}])
def test_batches_do_not_depend_on_the_number_of_workers(folder, mixing):
    data = ImageData(config(folder))
    batches = []
    for workers in (0, 1, 2):
        recipe = Recipe(
            epochs=1,
            batch_size=4,
            hflip=0.5,
            crop_scale_min=0.3,
            color_jitter=0.4,
            auto_augment="rand-m9-mstd0.5-inc1",
            random_erasing=0.5,
            loader_workers=workers,
            **mixing,
        )
        batches.append(list(data.train_batches(recipe, seed=1, epoch=2, device=CPU)))
    assert [len(b) for b in batches] == [6, 6, 6]
    for other in batches[1:]:
        for (images, labels), (other_images, other_labels) in zip(batches[0], other, strict=True):
            assert torch.equal(images, other_images)
            assert torch.equal(labels, other_labels)


def test_workers_last_from_epoch_to_epoch_and_are_no_more_than_cores(folder, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    before = torch.get_num_threads()
    data, me = ImageData(config(folder)), psutil.Process()
    others = {child.pid for child in me.children()}
    recipe = Recipe(epochs=3, batch_size=4, loader_workers=64)
    try:
        torch.set_num_threads(8)
        pids = []
        for epoch in range(3):
            epochs = [list(data.train_batches(recipe, seed=1, epoch=epoch, device=CPU))]
            assert len(epochs[0]) == 6
            pids.append({child.pid for child in me.children()} - others)
        # A pass that is left in the midst is begun again from its beginning.
        first = next(iter(data.train_batches(recipe, seed=1, epoch=1, device=CPU)))
        again = list(data.train_batches(recipe, seed=1, epoch=1, device=CPU))
    finally:
        torch.set_num_threads(before)
    assert len(pids[0]) == 2
    assert pids[0] == pids[1] == pids[2]
    assert torch.equal(first[0], again[0][0])
    assert len(again) == 6


def test_an_image_that_fails_later_is_named_and_no_other_takes_its_place(folder):
    data = ImageData(config(folder))
    (folder / "val" / "bee" / "1.png").write_bytes(b"")
    for workers in (0, 1):
        recipe = Recipe(epochs=1, batch_size=4, loader_workers=workers)
        assert len(list(data.train_batches(recipe, seed=0, epoch=0, device=CPU))) == 6
    with pytest.raises(ImageReadError, match=r"val/bee/1\.png: is no image"):
        list(data.eval_batches("validation", batch_size=2, device=CPU))


def test_a_daemon_loads_images_itself(folder, monkeypatch):
    # Python forbids children of daemons, such as the workers of a pool.
    daemon = SimpleNamespace(daemon=True)
    monkeypatch.setattr("sharedattn.data.images.multiprocessing.current_process", lambda: daemon)
    before = {child.pid for child in psutil.Process().children()}
    data = ImageData(config(folder))
    recipe = Recipe(epochs=1, batch_size=4, loader_workers=2)
    assert len(list(data.train_batches(recipe, seed=0, epoch=0, device=CPU))) == 6
    assert len(list(data.eval_batches("validation", batch_size=2, device=CPU))) == 5
    assert {child.pid for child in psutil.Process().children()} <= before


def test_small_images_are_read_once_and_large_ones_in_every_epoch(folder, monkeypatch):
    recipe = Recipe(epochs=3, batch_size=4, crop_scale_min=0.3, loader_workers=0)
    num_bytes = (30 + 9) * 13 * 11 * 3  # of train, from which test is cut, and of val
    batches, read = {}, Part.read
    for room, expected in ((num_bytes, [24, 0, 0]), (num_bytes - 1, [24, 24, 24])):
        monkeypatch.setattr("sharedattn.data.images.KEPT_BYTES", room)
        data, num_read = ImageData(config(folder)), []
        for epoch in range(3):
            seen = []
            monkeypatch.setattr(Part, "read", lambda *one, s=seen: s.append(one) or read(*one))
            drawn = list(data.train_batches(recipe, seed=1, epoch=epoch, device=CPU))
            batches.setdefault(epoch, []).append(torch.cat([images for images, _ in drawn]))
            num_read.append(len(seen))
        assert num_read == expected
    for kept, read_again in batches.values():
        assert torch.equal(kept, read_again)


def test_kept_images_are_copies_that_stay_in_their_process():
    kept, image = KeptImages(7 * 5 * 3), Image.new("RGB", (7, 5))
    kept.keep("train", 2, image, 3)
    image.putpixel((0, 0), (9, 9, 9))
    first, label = kept.get("train", 2)
    assert (label, first.getpixel((0, 0))) == (3, (0, 0, 0))
    first.putpixel((1, 1), (9, 9, 9))
    assert kept.get("train", 2)[0].getpixel((1, 1)) == (0, 0, 0)
    assert kept.get("validation", 2) is None
    kept.keep("train", 1, Image.new("RGB", (7, 6)), 0)
    assert kept.get("train", 1) is None
    assert pickle.loads(pickle.dumps(kept)).get("train", 2) is None


def test_loading_leaves_the_global_generators_alone(folder):
    data = ImageData(config(folder))
    recipe = Recipe(epochs=1, batch_size=4, hflip=0.5, random_erasing=0.5, mixup=0.8)

    def drawn():
        return random.random(), np.random.random(), torch.rand(1).item()

    def seed():
        random.seed(3)
        np.random.seed(3)
        torch.manual_seed(3)

    seed()
    expected = drawn()
    seed()
    list(data.train_batches(recipe, seed=1, epoch=0, device=CPU))
    list(data.eval_batches("validation", batch_size=4, device=CPU))
    assert drawn() == expected


@pytest.mark.parametrize("mixing", [{}, {"mixup": 0.8}, {"cutmix": 1.0, "label_smoothing": 0.1}])
def test_processes_share_the_very_batches_of_one(folder, mixing):
    data = ImageData(config(folder))
    recipe = Recipe(epochs=1, batch_size=8, hflip=0.5, random_erasing=0.5, **mixing)
    ranks = [Rank(index, 2) for index in range(2)]

    def train(rank):
        return list(data.train_batches(recipe, seed=1, epoch=2, device=CPU, rank=rank))

    whole, *shares = map(train, (ALONE, *ranks))
    assert len(whole) == len(shares[0]) == len(shares[1]) == 3
    for rank, share in zip(ranks, shares, strict=True):
        for batch, part in zip(whole, share, strict=True):
            for every, own in zip(batch, part, strict=True):
                assert torch.equal(own, every[rank.shard_positions(8)])

    def evaluated(rank):
        return list(data.eval_batches("validation", batch_size=2, device=CPU, rank=rank))

    whole, first, second = map(evaluated, (ALONE, *ranks))
    assert len(whole) == 5
    for ours, theirs in ((first, whole[::2]), (second, whole[1::2])):
        for (images, labels), (their_images, their_labels) in zip(ours, theirs, strict=True):
            assert torch.equal(images, their_images)
            assert torch.equal(labels, their_labels)


def test_mixup_gives_soft_labels(folder):
    data = ImageData(config(folder))
    recipe = Recipe(epochs=1, batch_size=4, mixup=0.8, label_smoothing=0.1)
    _, labels = next(iter(data.train_batches(recipe, seed=0, epoch=0, device=CPU)))
    assert labels.shape == (4, 3)
    assert torch.allclose(labels.sum(1), torch.ones(4))


def test_one_channel_images(folder):
    data = ImageData(config(folder, in_chans=1))
    images, _ = next(iter(data.eval_batches("test", batch_size=2, device=CPU)))
    assert images.shape == (2, 1, 8, 8)


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Seven images a file, laid out as torchvision unpacks CIFAR-10; the folder above them."""
    root = tmp_path / "cifar"
    batches = root / "cifar-10-batches-py"
    batches.mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    sums = {}
    for name in names:
        batch = {
            "data": rng.integers(0, 256, (7, 3072), dtype=np.uint8),
            "labels": [(7 * len(sums) + i) % 10 for i in range(7)],
        }
        (batches / name).write_bytes(pickle.dumps(batch))
        sums[name] = hashlib.md5((batches / name).read_bytes()).hexdigest()
    meta = batches / "batches.meta"
    meta.write_bytes(pickle.dumps({"label_names": [str(i) for i in range(10)]}))
    monkeypatch.setattr(CIFAR10, "train_list", [[n, sums[n]] for n in names[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [[names[5], sums[names[5]]]])
    monkeypatch.setattr(
        CIFAR10,
        "meta",
        {
            "filename": "batches.meta",
            "key": "label_names",
            "md5": hashlib.md5(meta.read_bytes()).hexdigest(),
        },
    )
    return DataConfig(name="torch/cifar10", root=str(root), image_size=32, val_fraction=0.2)


def test_cifar_as_it_lies_on_disk(cifar):
    data = ImageData(cifar)
    assert data.num_classes == 10
    assert [data.num_images(s) for s in ("train", "validation", "test")] == [25, 10, 7]
    images, _ = next(iter(data.eval_batches("test", batch_size=7, device=CPU)))
    assert images.shape == (7, 3, 32, 32)


def test_cifar_in_grey(cifar):
    data = ImageData(replace(cifar, in_chans=1))
    images, _ = next(iter(data.eval_batches("test", batch_size=7, device=CPU)))
    assert images.shape == (7, 1, 32, 32)


def test_the_fingerprint_of_a_named_data_set_is_that_of_its_own_files(cifar):
    before = ImageData(cifar).fingerprint
    root = Path(cifar.root)
    (root / "sharedattn.db").write_bytes(b"a study beside the data")
    assert ImageData(cifar).fingerprint == before
    (root / "cifar-10-batches-py" / "another").write_bytes(b"data")
    assert ImageData(cifar).fingerprint != before


def test_the_own_folder_of_mnist(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 5), ("t10k", 3)):
        header = b"".join(n.to_bytes(4, "big") for n in (2051, count, 28, 28))
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + bytes(count * 28 * 28))
        header = b"".join(n.to_bytes(4, "big") for n in (2049, count))
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(header + bytes(count))
    assert torch_folder(MNIST(tmp_path)) == tmp_path / "MNIST"


def test_a_torch_data_set_needs_a_root():
    with pytest.raises(InputError, match="`--data-root` is missing; name the folder"):
        ImageData(DataConfig(name="torch/cifar10"))


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("no-such-folder", "is no folder here; give digit-pairs, digit-count, a folder of images"),
        ("tfds/mnist", "is a stream, which gives no random access"),
        ("torch/cifar10", "cannot be read on this disk"),
        ("torch/image_folder", "torch/image_folder' is not known; torch/ has cifar10, cifar100"),
    ],
)
def test_data_that_is_not_there(name, rule, tmp_path):
    with pytest.raises(InputError, match=rule):
        open_data(DataConfig(name=name, root=str(tmp_path)))


def test_a_folder_without_images(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match="has 0 classes with images in train/: none"):
        ImageData(config(tmp_path))


def test_one_class_is_no_classification(tmp_path):
    write_images(tmp_path / "train", 4)
    for name in CLASSES[1:]:
        for file in (tmp_path / "train" / name).iterdir():
            file.unlink()
        (tmp_path / "train" / name).rmdir()
    with pytest.raises(InputError, match="has 1 class with images in train/: ant; at least two"):
        ImageData(config(tmp_path, val_fraction=0.3))


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_the_validation_fraction_is_a_fraction(folder, fraction):
    with pytest.raises(InputError, match="`--val-fraction` is "):
        ImageData(config(folder, val_fraction=fraction))


def test_two_channels_are_refused(folder):
    with pytest.raises(InputError, match="`in_chans` is 2"):
        ImageData(config(folder, in_chans=2))


def test_classes_that_are_too_small_to_be_cut_are_named(folder):
    shutil.rmtree(folder / "val")
    for file in sorted((folder / "train" / "bee").iterdir())[2:]:
        file.unlink()
    with pytest.raises(
        InputError, match=r"too few .* to test and validation: bee \(2\); add images"
    ):
        ImageData(config(folder))


def test_each_class_has_its_share_of_a_cut(folder):
    shutil.rmtree(folder / "val")
    for file in sorted((folder / "train" / "bee").iterdir())[3:]:
        file.unlink()
    data = ImageData(config(folder, val_fraction=0.2))
    assert data.class_counts("validation") == data.class_counts("test") == (2, 1, 2)
    assert data.class_counts("train") == (6, 1, 6)
