"""A small model trained on three colours, and the search that starts from its weights."""

import timm
import torch
from colours import COLOURS, picture
from timm.data import create_dataset, create_loader

from sharedattn.data import DataConfig, open_data
from sharedattn.data.pixels import PixelChanges

PIXELS = PixelChanges(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
IMAGES = {"train": 12, "val": 8, "test": 10}
WRONG = {"train": 0, "val": 2, "test": 1}  # images of each folder that have the next colour


def fill(root):
    """Folders of three colours, of which some images cannot be told."""
    colours = list(COLOURS)
    for split, count in IMAGES.items():
        for number, name in enumerate(colours):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                shown = colours[(number + (i < WRONG[split])) % 3]
                image = picture(COLOURS[shown], 1000 * number + i, size=19 + i % 3)
                image.save(folder / f"{i:02d}.png")


def loader(folder, pixels, *, training=False):
    return create_loader(
        create_dataset("", root=str(folder), split=folder.name, search_split=False),
        input_size=(3, pixels["image_size"], pixels["image_size"]),
        batch_size=7,
        is_training=training,
        no_aug=training,
        num_workers=0,
        persistent_workers=False,
        device=torch.device("cpu"),
        **{k: pixels[k] for k in ("mean", "std", "interpolation", "crop_pct", "crop_mode")},
    )


def shown_by(model, loader):
    with torch.inference_mode():
        found = [(model(images).argmax(1), labels) for images, labels in loader]
    return torch.cat([guess for guess, _ in found]), torch.cat([labels for _, labels in found])


def colour_model(depth):
    """timm's model of the backbone, not trained yet."""
    torch.manual_seed(0)
    return timm.models.VisionTransformer(
        img_size=16,
        patch_size=8,
        embed_dim=12,
        depth=depth,
        num_heads=2,
        mlp_ratio=1,
        num_classes=3,
    )


def write_inputs(folder, space):
    """Write a space, the images and a supernet's recipe; return the pixels that a search shows."""
    (folder / "space.yaml").write_text(space)
    (folder / "supernet.yaml").write_text(
        "training: {epochs: 1, batch_size: 8, loader_workers: 0}"
    )
    fill(folder / "data")
    source = open_data(
        DataConfig(name=str(folder / "data"), image_size=16, in_chans=3, pixels=PIXELS)
    )
    return {"image_size": 16, **source.pixels.to_json()}


def arguments(**changes):
    given = {
        "data": "data",
        "weights": "model.safetensors",
        "mean": "0.5,0.5,0.5",
        "std": "0.25,0.25,0.25",
        "supernet-recipe": "supernet.yaml",
        "supernet-epochs": 1,
        "recipe": "recipe.yaml",
        "epochs": 1,
        "confirm-seeds": 1,
        "baselines": "none",
        "workers": 1,
        "cpus-per-trial": 1,
        "device": "cpu",
        "out": "out",
        **changes,
    }
    return ["search", "space.yaml", "--evaluator", "supernet"] + [
        part for name, value in given.items() if value is not None for part in (f"--{name}", value)
    ]


def trained(model, folder, pixels):
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(6):
        for images, labels in loader(folder, pixels, training=True):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            optimiser.step()
    return model.eval()
