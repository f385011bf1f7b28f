"""The class of each image, by what the file says: python onnx_ten_lines.py model.onnx IMAGE...

For upright images without transparency, cropped to a square at the centre; onnx_predict.py takes
all others.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1])
says = session.get_modelmeta().custom_metadata_map
size, mean, std, crop_pct = (
    json.loads(says[k]) for k in ("image_size", "mean", "std", "crop_pct")
)
for path in sys.argv[2:]:
    image = Image.open(path).convert(says["input_channels"])
    edges = [int(size / crop_pct) * edge // min(image.size) for edge in image.size]
    left, top = (round((edge - size) / 2) for edge in edges)
    image = image.resize(edges, Image.Resampling[says["interpolation"].upper()])
    x = np.asarray(image.crop((left, top, left + size, top + size)), np.float32) / 255
    x = ((x.reshape(size, size, -1) - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
    print(path, json.loads(says["class_names"])[session.run(None, {"images": x})[0].argmax()])
