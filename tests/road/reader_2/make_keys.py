"""Keys, costs and fingerprints: python make_keys.py > keys.json.

To be run in a folder that holds `shapes/`, beside copies of the YAML and JSON files here and of
`exports/`. The tests ask the same functions.
"""

import json
from dataclasses import replace
from pathlib import Path

from sharedattn.backbones import resolve
from sharedattn.costs.model import CostModel
from sharedattn.data import DataConfig, open_data
from sharedattn.data.pixels import PixelChanges
from sharedattn.placement import NetworkSpec
from sharedattn.recipe import RECIPES, Recipe
from sharedattn.search.config import SearchConfig
from sharedattn.search.data_plan import DataOptions
from sharedattn.search.run import prepare
from sharedattn.spaces.budget import Budget
from sharedattn.supernet.trainer import SUPERNET_RECIPES, SupernetRecipe

SMALL = "depth=4,embed_dim=12,in_chans=1,num_classes=3,num_heads=2,patch_size=4"
PYRAMID = "depths=2-2,embed_dims=6-10,in_chans=1,mlp_ratios=2-1,num_heads=1-2,sr_ratios=2-1"
SHIFTED = "depths=1-3,embed_dim=6,in_chans=1,num_heads=1-3,patch_size=2,window_size=2-2"
NETWORKS = [
    "deit_tiny_patch16_224: V12",
    "deit_tiny_patch16_224: V6L6/cb/dia1",
    "deit_tiny_patch16_224: E4V4L4/s16/dia2/cb6",
    "deit_tiny_patch16_224: V4L8/full",
    "deit_tiny_patch16_224: V4L8/keys/cb3",
    "deit_tiny_patch16_224: V4L8/lowrank16/dia3",
    "deit_tiny_patch16_224: V4L8/reuse/dia12/cb12",
    "deit_tiny_patch16_224: E3V3L3N3/s32/mea/keys/dia2/cb",
    "deit_tiny_patch16_224: N1V1N1V1L2E1V1N2L2/s8/reuse/cb5",
    "deit_tiny_patch16_224@384: V6N6",
    "deit_small_patch16_224(num_classes=10): E6V6/s1/cb1",
    "deit_tiny_patch16_224(dia_start=one): V12/dia4",
    "deit_tiny_patch16_224(dia_start=one): V12",
    "deit_tiny_patch16_224(dia_reduction=8): V8N4/dia2",
    "deit_tiny_patch16_224(broadcasting_form=scaled): V6N6/cb4",
    "deit_tiny_patch16_224(class_token_in_mean=false): V6N6/cb4/dia1",
    "deit_tiny_patch16_224(external_expansion=2): E6V6/mea/s48",
    "deit_tiny_patch16_224(external_expansion=2): E6V6",
    f"vit({SMALL})@16: E/s16,E/s64/cb,V/d0,L/keys/d0",
    f"vit({SMALL})@16: V/d1/cb,L/full/d0,L/lowrank2/d1,E/s5/mea/d0/cb",
    f"vit({SMALL})@16: V/d5,N/d5,L/reuse,V/cb",
    f"vit({SMALL})@16: V1L1E1N1/s64/full/dia1/cb1",
    f"vit(class_token=false,global_pool=avg,mlp_ratio=2.0,{SMALL})@12: V2L2",
    f"vit({SMALL})@16: V1",
    "swin_tiny_patch4_window7_224: V2 | V2 | V2L4 | V2",
    "swin_tiny_patch4_window7_224: E2/mea | N1V1/cb | V2L2E2/s16/keys/dia2 | V2/dia1/cb1",
    "swin_tiny_patch4_window7_224(handover=previous): V1L1 | V1L1/full | V1L5/reuse | V1L1",
    f"swin({SHIFTED})@16: V1/cb | V,V/d0,L/keys/d0",
    "pvt_tiny: V2 | V2 | V2 | V2",
    "pvt_medium: V3 | V4 | V1L17 | V1L2",
    "pvt_medium(attention_residual=true): V3 | V4 | V1L17/full | V1L2/cb",
    f"pvt({PYRAMID})@16: E/s3,E/s7/mea/cb | V1L1/lowrank1/dia1",
    "pvt_v2_b1: E2/s64 | V1L1/cb | V1L1/dia1/cb | V1L1",
    "pvt_v2_b1: V1L1/keys | V1L1/reuse | V1L1/lowrank8 | V1L1/full",
    f"pvt_v2(attention_residual=true,dia_start=one,{PYRAMID})@16: V1L1/dia1 | V1N1/cb",
    "t2t_ea_14: E14/mea",
    "t2t_ea_14: E7V3L3N1/s16/lowrank16/dia3/cb7",
    "ceit_tiny: V6N6",
    "ceit_tiny(broadcasting_form=scaled): V4L4E4/keys/cb/dia2",
    "deepvit_16b: V8L8/lowrank16",
    "deepvit_16b: E4V4L4N4/s64/mea/reuse/dia1/cb8",
    "hvt_ti_1: V1 | V3L8/keys",
    "hvt_ti_1: E1/cb | E3V3L3N2/s16/full/dia2/cb5",
    "lavit_like_t",
    "lavit_like_s",
    "lavit_like_b",
]
RECIPE_CHANGES = {
    "epochs": {"epochs": 7},
    "optimizer": {"optimizer": "sgd", "optimizer_options": {"momentum": 0.9}},
    "schedule": {"lr": 0.003, "min_lr": 1e-6, "warmup_epochs": 0.5, "weight_decay": 0.1},
    "losses": {"label_smoothing": 0.1, "diagonality_weight": 0.25, "clip_grad_norm": 1.0},
    "images": {"hflip": 0.5, "crop_scale_min": 0.4, "color_jitter": 0.3, "random_erasing": 0.25},
    "mixed": {"auto_augment": "rand-m9-mstd0.5-inc1", "mixup": 0.8, "cutmix": 1.0},
    "network": {"drop_path_rate": 0.1, "ema_decay": 0.99, "amp": "bfloat16", "init": "timm"},
    "rungs": {"rungs": [1, 2]},
    "restarts": {"rungs": [1, 2], "restarts": True},
    "machine": {"loader_workers": 2, "grad_checkpointing": True},
}
SUPERNET_CHANGES = {
    "sampling": {"sampled_per_step": 1, "strata": 1, "distillation": 0.25},
    "uniform": {"sandwich": False, "distillation": 0.0},
    "alone": {"alone_epochs": 1, "micro_batches": 2},
    "scores": {"scored_images": 97, "calibration_batches": 9},
}
DATA = {
    "digit-pairs": {"name": "digit-pairs"},
    "digit-pairs, at its size": {"name": "digit-pairs", "image_size": 16, "in_chans": 1},
    "shapes": {"name": "shapes"},
    "shapes, grey": {"name": "shapes", "image_size": 9, "in_chans": 1},
    "shapes, no test": {"name": "shapes", "image_size": 12, "test_fraction": 0.0},
    "shapes, test": {"name": "shapes", "image_size": 12, "test_fraction": 0.2, "split_seed": 3},
    "train": {"name": "shapes/train", "image_size": 12, "val_fraction": 0.3},
    "train, other cut": {"name": "shapes/train", "image_size": 12, "split_seed": 5},
    "train, classes": {"name": "shapes/train", "classes": ("dot", "bar", "cross")},
    "pixels": {
        "name": "shapes",
        "image_size": 12,
        "pixels": PixelChanges(
            mean=(0.5,), std=(0.25,), interpolation="bilinear", crop_pct=0.8, crop_mode="border"
        ),
    },
    "reader 1": {
        "name": "shapes",
        "reader": 1,
        "image_size": 12,
        "in_chans": 3,
        "val_fraction": 0.3,
    },
}
KINDS = {"space": "kinds.yaml"}
SUPERNET = {**KINDS, "evaluator": "supernet"}
TABLE = {"space": "tiny.yaml", "evaluator": "table", "table": Path("table.json")}
SHAPES = {"space": "shapes.yaml", "data": "shapes", "recipe": "recipe.yaml"}
MAIN_JOB = {"space": "digit-pairs-vit"}  # the default of then
STUDIES = {
    "main job": MAIN_JOB,
    "main job, seed": {**MAIN_JOB, "seed": 7},
    "main job, random": {**MAIN_JOB, "searcher": "random"},
    "main job, tpe": {**MAIN_JOB, "searcher": "tpe"},
    "main job, params": {**MAIN_JOB, "objectives": ("top1", "params")},
    "main job, three objectives": {**MAIN_JOB, "objectives": ("top1", "macs", "params")},
    "main job, max_macs": {**MAIN_JOB, "budget": Budget(max_macs=1_000_000)},
    "main job, max_params": {**MAIN_JOB, "budget": Budget(max_params=100_000)},
    "main job, both": {**MAIN_JOB, "budget": Budget(max_macs=1_000_000, max_params=100_000)},
    "main job, epochs": {**MAIN_JOB, "epochs": 9},
    "main job, recipe": {**MAIN_JOB, "recipe": "recipe.yaml"},
    "main job, mo-asha": {**MAIN_JOB, "early_stopping": "mo-asha", "epochs": 9},
    "main job, rungs": {**MAIN_JOB, "early_stopping": "mo-asha", "epochs": 9, "rungs": (2, 4)},
    "main job, deterministic": {**MAIN_JOB, "deterministic": True, "num_workers": 3},
    "main job, latency": {**MAIN_JOB, "objectives": ("top1", "latency_ms")},
    "main job, max_latency_ms": {**MAIN_JOB, "max_latency_ms": 2.5, "latency_batch_size": 4},
    "main job, four objectives": {
        **MAIN_JOB,
        "objectives": ("top1", "macs", "params", "latency_ms"),
    },
    "main job, supernet": {**MAIN_JOB, "evaluator": "supernet"},
    "kinds": KINDS,
    "kinds, supernet": SUPERNET,
    "kinds, supernet, recipe": {**SUPERNET, "supernet_recipe": "supernet.yaml"},
    "kinds, supernet, epochs": {**SUPERNET, "supernet_epochs": 3},
    "kinds, supernet, retrain": {**SUPERNET, "front_training": "retrain"},
    "kinds, supernet, max_macs": {**SUPERNET, "budget": Budget(max_macs=16_000)},
    "kinds, supernet, weights": {**SUPERNET, "weights": "exports/vanilla"},
    "table": TABLE,
    "table, mo-asha, tpe": {**TABLE, "searcher": "tpe", "early_stopping": "mo-asha"},
    "table, params": {**TABLE, "objectives": ("top1", "params")},
    "shapes": SHAPES,
    "shapes, options": {
        **SHAPES,
        "data_options": DataOptions(
            test_split=0.2,
            on_bad_image="skip",
            scan="full",
            pixels=PixelChanges(crop_pct=0.9, crop_mode="squash"),
        ),
    },
    "shapes, train alone": {**SHAPES, "data": "shapes/train", "val_fraction": 0.3},
}


def of_network(text: str) -> dict[str, object]:
    """Keys of a network as written and as resolved, its canonical text, and its cost."""
    written = NetworkSpec.parse(text)
    spec = resolve(written)
    cost = CostModel(spec.backbone).cost(spec.placement)
    return {
        "key_as_written": written.key,
        "text_as_written": str(written),
        "key": spec.key,
        "text": str(spec),
        "params": cost.params,
        "trainable_params": cost.trainable_params,
        "macs": cost.macs,
        "matmul_macs": cost.matmul_macs,
        "attention_bytes": cost.attention_bytes,
    }


def recipes() -> dict[str, str]:
    """Keys of the recipes by name, and of one with each option changed."""
    base = RECIPES["digit-pairs"].to_json()
    changed = {
        f"digit-pairs, {name}": Recipe.from_json({**base, "epochs": 4, **changes}).key
        for name, changes in RECIPE_CHANGES.items()
    }
    return {**{name: recipe.key for name, recipe in known(RECIPES).items()}, **changed}


def known(recipes: dict) -> dict:
    """Those that were there; the ones of digit-count and of small folders came later."""
    later = ("digit-count", "small")
    return {name: r for name, r in recipes.items() if not name.startswith(later)}


def supernet_recipes() -> dict[str, str]:
    """Keys of the supernet recipes by name, with fewer epochs, and with options changed."""
    base = SupernetRecipe(training=RECIPES["digit-pairs"])
    return {
        **{name: recipe.key for name, recipe in known(SUPERNET_RECIPES).items()},
        **{f"{n}, 2": r.with_epochs(2).key for n, r in known(SUPERNET_RECIPES).items()},
        **{f"plain, {n}": replace(base, **c).key for n, c in SUPERNET_CHANGES.items()},
    }


def of_data(name: str) -> str:
    """The fingerprint of data, in the folder that holds `shapes/`."""
    return open_data(DataConfig(**DATA[name])).fingerprint


def of_study(name: str, out: Path) -> dict[str, object]:
    """What a study's identity is made of, in the folder that holds its files."""
    given = {
        **{"num_workers": 1, "device": "cpu", "out": out},
        "searcher": "nsga2",  # the default then
        **STUDIES[name],
    }
    record = prepare(SearchConfig.of(**given), remember=False).record
    return {
        "name": record.name,
        "fingerprint": record.fingerprint,
        "num_trials": record.num_trials,
        "reference_point": dict(record.reference_point),
    }


if __name__ == "__main__":
    found = {
        "networks": {text: of_network(text) for text in NETWORKS},
        "recipes": recipes(),
        "supernet_recipes": supernet_recipes(),
        "data": {name: of_data(name) for name in DATA},
        "studies": {name: of_study(name, Path("none")) for name in STUDIES},
    }
    print(json.dumps(found, indent=1))
