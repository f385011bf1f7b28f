"""Keys at the commit to freeze: python make_keys.py > keys.json."""

import json
from pathlib import Path

from sharedattn.backbones import resolve
from sharedattn.data import DataConfig, open_data
from sharedattn.placement import NetworkSpec
from sharedattn.recipe import RECIPES, Recipe
from sharedattn.search.config import SearchConfig
from sharedattn.search.run import prepare
from sharedattn.supernet.trainer import SUPERNET_RECIPES

NETWORKS = [
    "deit_tiny_patch16_224: V6L6/cb/dia1",
    "deit_tiny_patch16_224: E4V4L4/s16/dia2/cb6",
    "deit_tiny_patch16_224@384: V12",
    "vit(depth=2,embed_dim=12,num_classes=3,num_heads=2,patch_size=4)@12: V1/cb",
    "pvt_v2_b1: E2/s64 | V1L1/cb | V1L1/dia1/cb | V1L1",
    "swin_tiny_patch4_window7_224: V2 | V2 | V2L4 | V2",
    "pvt_medium: V3 | V4 | V1L17 | V1L2",
    "t2t_ea_14: E14/mea",
    "ceit_tiny: V6N6",
    "deepvit_16b: V8L8/lowrank16",
]
out = {
    "specs": {t: resolve(NetworkSpec.parse(t)).key for t in NETWORKS},
    "recipes": {n: r.key for n, r in RECIPES.items()},
    "recipe_file": Recipe.load("recipe.yaml").key,
    "supernet_recipes": {n: r.key for n, r in SUPERNET_RECIPES.items()},
    "digit_pairs": open_data(DataConfig(name="digit-pairs")).fingerprint,
    "shapes": open_data(
        DataConfig(name="shapes", image_size=12, in_chans=3, val_fraction=0.3)
    ).fingerprint,
    "shapes_train": open_data(
        DataConfig(name="shapes/train", image_size=12, in_chans=3, val_fraction=0.3)
    ).fingerprint,
    "shapes_train_grey": open_data(
        DataConfig(name="shapes/train", image_size=96, in_chans=1, val_fraction=0.2, split_seed=5)
    ).fingerprint,
    "studies": {
        name: prepare(SearchConfig(out=Path("none"), num_workers=1, **given)).record.fingerprint
        for name, given in {
            "main job": {},
            "main job, supernet": {"evaluator": "supernet"},
        }.items()
    },
}
print(json.dumps(out, indent=1))
