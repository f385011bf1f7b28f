"""Predict image files by an exported model.onnx, which says itself what its input is.

    pip install onnxruntime pillow numpy
    python onnx_predict.py model.onnx IMAGE...

Prints a line for each image: its file, the most likely class, and its probability.
"""

import json
import math
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def read(path: str, mode: str) -> Image.Image:
    """An image file upright, in 8 bits, on white where it is transparent, as RGB or L."""
    with Image.open(path) as image:
        deep = image.mode != "I" or image.format in ("PNG", "PPM")  # 16 bits, however read
        image = ImageOps.exif_transpose(image)
        if image.mode == "F":
            low, high = image.getextrema()
            if not (low >= 0 and high <= 1):
                sys.exit(f"{path}: floating-point pixels from {low:g} to {high:g}, not 0 to 1")
            image = Image.fromarray(np.rint(np.asarray(image) * 255).astype(np.uint8))
        elif image.mode.startswith("I"):
            values = np.asarray(image).astype(np.uint32)
            image = Image.fromarray(((values + 128) // 257 if deep else values >> 24).astype("u1"))
        elif image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        return image.convert(mode)


def pixels(image: Image.Image, says: dict[str, str]) -> np.ndarray:
    """An image resized, cropped and normalised as the file says, (C, Y, X)."""
    size, mean, std = (json.loads(says[name]) for name in ("image_size", "mean", "std"))
    height, width = size if isinstance(size, list) else (size, size)
    crop = (width, height)
    target = tuple(math.floor(edge / json.loads(says["crop_pct"])) for edge in crop)
    ratios = [edge / whole for edge, whole in zip(image.size, target, strict=True)]
    if says["crop_mode"] == "squash":
        new = target
    elif says["crop_mode"] == "border":
        new = tuple(round(edge / max(ratios)) for edge in image.size)
    elif height == width:
        new = tuple(int(target[0] * edge / min(image.size)) for edge in image.size)
    else:
        new = tuple(round(edge / min(ratios)) for edge in image.size)
    image = image.resize(new, Image.Resampling[says["interpolation"].upper()])
    # Padded with the mean where it is smaller than the crop, which only `border` leaves it.
    padded = Image.new(image.mode, tuple(map(max, new, crop)), _fill(mean))
    padded.paste(
        image, tuple((whole - edge) // 2 for whole, edge in zip(padded.size, new, strict=True))
    )
    left, top = (round((whole - edge) / 2) for whole, edge in zip(padded.size, crop, strict=True))
    padded = padded.crop((left, top, left + width, top + height))
    values = np.asarray(padded, dtype=np.float32) / 255
    values = (values.reshape(height, width, -1) - np.float32(mean)) / np.float32(std)
    return values.transpose(2, 0, 1)


def _fill(mean: list[float]) -> tuple[int, ...] | int:
    levels = tuple(round(255 * value) for value in mean)
    return levels if len(levels) > 1 else levels[0]


def main(model: str, *paths: str) -> None:
    """Predict image files, one after the other."""
    session = onnxruntime.InferenceSession(model)
    says = session.get_modelmeta().custom_metadata_map
    if "mean" not in says:
        sys.exit(f"{model}: its input is {says.get('input_range', 'not said')}, no image files")
    names = json.loads(says.get("class_names", "null"))
    for path in paths:
        x = pixels(read(path, says["input_channels"]), says)[np.newaxis]
        logits = session.run([says["output_name"]], {says["input_name"]: x})[0][0].astype(float)
        probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        best = int(probabilities.argmax())
        print(f"{path}\t{names[best] if names else best}\t{probabilities[best]:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
