"""A data set that costs nothing, and a network for it; importable by the processes of tests."""

import torch

from sharedattn.backbones import resolve
from sharedattn.data.source import DataSource, spread
from sharedattn.distributed import ALONE
from sharedattn.image_size import ImageSize
from sharedattn.placement import NetworkSpec
from sharedattn.recipe import Recipe

SPEC = resolve(
    NetworkSpec.parse(
        "vit(class_token=false,depth=2,embed_dim=10,global_pool=avg,in_chans=1,num_classes=3,"
        "num_heads=2,patch_size=2,mlp_ratio=2)@6: V1L1/dia1/cb"
    )
)
RECIPE = Recipe(epochs=3, batch_size=7, init="torch", lr=5e-3, warmup_epochs=1.0)


class Shades(DataSource):
    """Three classes told apart by their brightness; remembers what was asked of it."""

    name = "shades"
    image_size, in_chans, num_classes = ImageSize(6, 6), 1, 3

    def __init__(self, poison=False):
        self.identity = {"name": self.name}
        self.opened = []
        self.poison = poison

    def num_images(self, split):
        return {"train": 35, "validation": 23, "test": 11}[split]

    def draw(self, count, seed):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(3, (count,), generator=generator)
        images = torch.randn(count, 1, 6, 6, generator=generator) / 2
        for i, label in enumerate(labels):
            images[i] += label - 1.0
        if self.poison:
            images[0, 0, 0, 0] = torch.nan
        return images, labels

    def train_batches(self, recipe, *, seed, epoch, device, rank=ALONE):
        self.opened.append(("train", epoch))
        images, labels = self.draw(35, 1000 * seed + epoch)
        share = torch.tensor(rank.shard_positions(recipe.batch_size))
        for start in range(0, 35 - recipe.batch_size + 1, recipe.batch_size):
            yield images[start + share], labels[start + share]

    def eval_batches(self, split, *, batch_size, device, at_most=None, rank=ALONE):
        self.opened.append((split, None))
        images, labels = self.draw(self.num_images(split), 77 if split == "test" else 55)
        chosen = torch.tensor(spread(len(labels), at_most))
        images, labels = images[chosen], labels[chosen]
        batches = zip(images.split(batch_size), labels.split(batch_size), strict=True)
        yield from rank.shard_batches(list(batches))
