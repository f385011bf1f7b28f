"""Image data on disk, through timm's own loading: splits, cuts, fingerprints, augmentation."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from sharedattn.data import DataConfig, open_data
from sharedattn.data.images import ImageData
from sharedattn.errors import InputError
from sharedattn.recipe import Recipe

# timm 1.0.31 leaves closing an image's file to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

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


def test_of_two_splits_the_held_out_one_is_tested_and_validation_is_cut_from_train(folder):
    data = ImageData(config(folder))
    assert (data.num_classes, data.image_size, data.in_chans) == (3, 8, 3)
    assert [data.num_images(s) for s in ("train", "validation", "test")] == [24, 6, 9]


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
        {s: tuple(data._parts[s].indices) for s in ("train", "validation")}
        for data in (one, same, other)
    ]
    assert cuts[0] == cuts[1] != cuts[2]
    assert sorted(cuts[0]["train"] + cuts[0]["validation"]) == list(range(30))
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
    images, labels = next(iter(data.eval_batches("test", batch_size=9, device=CPU)))
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    # Each class has a brighter channel of its own.
    assert torch.equal(images.mean((2, 3)).argmax(1), labels)


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


def test_cifar_as_it_lies_on_disk(tmp_path):
    root = tmp_path / "cifar"
    batches = root / "cifar-10-batches-py"
    batches.mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    sums = {}
    for name in names:
        batch = {
            "data": rng.integers(0, 256, (7, 3072), dtype=np.uint8),
            "labels": [int(c) for c in rng.integers(0, 10, 7)],
        }
        (batches / name).write_bytes(pickle.dumps(batch))
        sums[name] = hashlib.md5((batches / name).read_bytes()).hexdigest()
    meta = batches / "batches.meta"
    meta.write_bytes(pickle.dumps({"label_names": [str(i) for i in range(10)]}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CIFAR10, "train_list", [[n, sums[n]] for n in names[:5]])
        patch.setattr(CIFAR10, "test_list", [[names[5], sums[names[5]]]])
        patch.setattr(
            CIFAR10,
            "meta",
            {
                "filename": "batches.meta",
                "key": "label_names",
                "md5": hashlib.md5(meta.read_bytes()).hexdigest(),
            },
        )
        data = ImageData(
            DataConfig(name="torch/cifar10", root=str(root), image_size=32, val_fraction=0.2)
        )
        assert data.num_classes == 10
        assert [data.num_images(s) for s in ("train", "validation", "test")] == [28, 7, 7]
        images, _ = next(iter(data.eval_batches("test", batch_size=7, device=CPU)))
        assert images.shape == (7, 3, 32, 32)
        assert len(data.fingerprint) == 64


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("no-such-folder", "data is digit-pairs, a folder, torch/NAME or hfds/NAME"),
        ("tfds/mnist", "a data set gives random access"),
        ("torch/cifar10", "data is on this disk and readable"),
    ],
)
def test_data_that_is_not_there(name, rule, tmp_path):
    with pytest.raises(InputError, match=rule):
        open_data(DataConfig(name=name, root=str(tmp_path)))


def test_a_folder_without_images(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match="data is on this disk and readable"):
        ImageData(config(tmp_path))


def test_one_class_is_no_classification(tmp_path):
    write_images(tmp_path / "train", 4)
    for name in CLASSES[1:]:
        for file in (tmp_path / "train" / name).iterdir():
            file.unlink()
        (tmp_path / "train" / name).rmdir()
    with pytest.raises(InputError, match="data has at least two classes"):
        ImageData(config(tmp_path, val_fraction=0.3))


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_the_validation_fraction_is_a_fraction(folder, fraction):
    with pytest.raises(InputError, match="0 < val_fraction < 1"):
        ImageData(config(folder, val_fraction=fraction))


def test_two_channels_are_refused(folder):
    with pytest.raises(InputError, match="images have 1 or 3 channels"):
        ImageData(config(folder, in_chans=2))


def test_a_cut_that_leaves_no_validation_images(folder):
    with pytest.raises(InputError, match="data has training and validation images"):
        ImageData(config(folder, val_fraction=0.01))
