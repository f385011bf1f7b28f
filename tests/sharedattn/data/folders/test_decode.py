"""Image files as pixels: upright, on white, deep greys scaled, or named as unreadable."""

import io

import numpy as np
import pytest
from PIL import Image

from sharedattn.data.folders.decode import ImageReadError, image_suffixes, read_image

RAMP = np.arange(7 * 11, dtype=np.uint8).reshape(7, 11) * 3


def saved(path, image, **options):
    image.save(path, **options)
    return path


def pixels(path, mode="RGB"):
    return np.asarray(read_image(path, mode))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_camera_is_applied(tmp_path, orientation):
    turns = [
        lambda a: a,
        lambda a: a[:, ::-1],
        lambda a: a[::-1, ::-1],
        lambda a: a[::-1],
        lambda a: a.swapaxes(0, 1),
        lambda a: np.rot90(a, 1),  # shown after a quarter turn to the right
        lambda a: np.rot90(a, 2).swapaxes(0, 1),
        lambda a: np.rot90(a, -1),
    ]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(turns[orientation - 1](RAMP)))
    path = saved(tmp_path / "x.png", stored, exif=exif)
    assert np.array_equal(pixels(path, "L"), RAMP)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_camera_data_is_no_damage_to_the_image(tmp_path):
    path = saved(tmp_path / "x.jpg", Image.fromarray(RAMP), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert pixels(path).shape == (7, 11, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_stands_on_white(tmp_path, mode):
    alpha = np.zeros((7, 11), np.uint8)
    alpha[:, :5] = 255
    black = Image.fromarray(np.zeros((7, 11), np.uint8)).convert(mode)
    black.putalpha(Image.fromarray(alpha))
    found = pixels(saved(tmp_path / "x.png", black), "L")
    assert np.array_equal(found, 255 - alpha)


def test_half_transparent_is_half_white(tmp_path):
    image = Image.new("RGBA", (3, 2), (40, 80, 120, 51))
    # 255 (1 - a) + a c, of a = 0.2
    assert pixels(saved(tmp_path / "x.png", image))[0, 0].tolist() == [212, 220, 228]


def test_transparent_colours_of_a_palette_stand_on_white(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50] + [0] * 762)
    image.putdata([0, 1, 1, 0])
    found = pixels(saved(tmp_path / "x.png", image, transparency=1))
    assert found.tolist() == [
        [[10, 20, 30], [255, 255, 255]],
        [[255, 255, 255], [10, 20, 30]],
    ]


def test_16_bits_are_scaled_and_not_cut_off(tmp_path):
    values = np.array([[0, 128, 129], [3000, 32767, 65535]], np.uint16)
    for name in ("x.png", "x.tif"):
        path = saved(tmp_path / name, Image.fromarray(values))
        assert pixels(path, "L").tolist() == np.rint(values / 257.0).astype(int).tolist()


def test_32_bits_are_scaled_and_small_ones_refused(tmp_path):
    values = np.array([[0, 2**24], [2**30, 2**31 - 1]], np.int32)
    path = saved(tmp_path / "x.tif", Image.fromarray(values))
    assert pixels(path, "L").tolist() == [[0, 1], [64, 127]]
    path = saved(tmp_path / "y.tif", Image.fromarray(values // 2**16))
    with pytest.raises(ImageReadError, match="32-bit integers of at most 32,767 have no known"):
        read_image(path, "L")


def test_floating_point_is_read_from_0_to_1_alone(tmp_path):
    values = np.array([[0.0, 0.25, 1.0]], np.float32)
    path = saved(tmp_path / "x.tif", Image.fromarray(values))
    assert pixels(path, "L").tolist() == [[0, 64, 255]]
    for wrong in (255.0 * values, values - 0.5, values * np.nan):
        path = saved(tmp_path / "y.tif", Image.fromarray(wrong.astype(np.float32)))
        with pytest.raises(ImageReadError, match="floating-point pixels from"):
            read_image(path, "L")


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("1", ".png"),
        ("L", ".png"),
        ("P", ".png"),
        ("RGB", ".png"),
        ("CMYK", ".jpg"),
        ("CMYK", ".tif"),
    ],
)
def test_every_mode_is_read(tmp_path, mode, suffix):
    image = Image.new("RGB", (5, 3), (250, 10, 10)).convert(mode)
    found = pixels(saved(tmp_path / f"x{suffix}", image))
    assert found.shape == (3, 5, 3)
    assert found[0, 0, 0] >= found[0, 0, 1]


@pytest.mark.parametrize("cut", [0, 10, 60, 200])
def test_a_part_of_a_file_is_named_with_its_reason(tmp_path, cut):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)).save(
        file, "PNG"
    )
    path = tmp_path / "x.png"
    path.write_bytes(file.getvalue()[:cut])
    with pytest.raises(ImageReadError, match=r"x\.png: \w+"):
        read_image(path, "RGB")


def test_no_file_is_handed_to_another_program(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    with pytest.raises(ImageReadError, match="is no image"):
        read_image(path, "RGB")
    assert ".eps" not in image_suffixes()
    assert {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".gif"} <= image_suffixes()
