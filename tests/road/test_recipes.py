"""Recipes, spaces and configs are read by the YAML of today, and no value is taken for another."""

from pathlib import Path

import pytest
import torch
import yaml
from tiny import BACKBONE, SPACE

from sharedattn.recipe import Recipe
from sharedattn.spaces.space import Space
from sharedattn.supernet.trainer import SupernetRecipe
from sharedattn.training.trainer import _check_update
from sharedattn.yaml_text import read_yaml, write_yaml

NUMERIC = [
    "epochs",
    "batch_size",
    "lr",
    "weight_decay",
    "warmup_epochs",
    "min_lr",
    "clip_grad_norm",
    "drop_path_rate",
    "label_smoothing",
    "diagonality_weight",
    "ema_decay",
    "hflip",
    "crop_scale_min",
    "color_jitter",
    "random_erasing",
    "mixup",
    "cutmix",
    "loader_workers",
]
SUPERNET_NUMERIC = [
    "sampled_per_step",
    "distillation",
    "strata",
    "alone_epochs",
    "micro_batches",
    "scored_images",
    "calibration_batches",
]


def recipe(text: str) -> Recipe:
    path = Path("recipe.yaml")
    path.write_text(text, encoding="utf-8")
    return Recipe.load(str(path))


def train(lab, text: str) -> str:
    """What `train` says that refuses a recipe."""
    Path("recipe.yaml").write_text(text, encoding="utf-8")
    return lab.refused("train", f"{BACKBONE}: V2", "--to", "there", "--recipe", "recipe.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E-3", 1e-3),
        ("1e3", 1e3),
        ("+1e+2", 1e2),
        (".5e1", 5.0),
        ("1.e-2", 1e-2),
        ("2.5e-4", 2.5e-4),
        ("1.0e-3", 1e-3),
        ("0.001", 1e-3),
        ("0", 0),
    ],
)
def test_numbers_are_those_of_yaml_1_2(lab, text, value) -> None:
    assert recipe(f"epochs: 3\nlr: {text}\n").lr == value
    assert recipe(f"epochs: 3\noptimizer_options: {{eps: {text}}}\n").optimizer_options == (
        ("eps", value),
    )
    document = read_yaml(f"training: {{epochs: 3, lr: {text}}}\n", {})
    assert SupernetRecipe.from_json(document).training.lr == value


@pytest.mark.parametrize("text", ["'1e-3'", '"1e-3"', "e3", "1e", "1e-3x", "--1e3", "1 e3"])
def test_text_is_no_number(lab, text) -> None:
    assert "`lr` of a recipe is a number" in train(lab, f"epochs: 3\nlr: {text}\n")


@pytest.mark.parametrize("text", ["010", "00", "1:30", "1:30.5", "-012", "0_7"])
@pytest.mark.parametrize("name", ["epochs", "lr"])
def test_what_versions_of_yaml_read_differently_is_refused(lab, name, text) -> None:
    other = "epochs: 3\n" if name != "epochs" else ""
    said = train(lab, f"{other}{name}: {text}\n")
    assert f"recipe.yaml, line {2 if other else 1} ({name}: {text}): {name}: {text} is one" in said


@pytest.mark.parametrize("text", ["yes", "true", "on", "no", "False", ".nan", ".inf", "-.inf"])
def test_a_bool_or_nan_is_no_number(lab, text) -> None:
    for name in NUMERIC:
        other = "epochs: 3\n" if name != "epochs" else ""
        said = train(lab, f"{other}{name}: {text}\n")
        assert f"`{name}` of a recipe is a" in said
    for name in SUPERNET_NUMERIC:
        Path("supernet.yaml").write_text(f"training: digit-pairs\n{name}: {text}\n")
        said = lab.refused(
            *("search", "digit-pairs-vit", "--evaluator", "supernet"),
            *("--supernet-recipe", "supernet.yaml"),
        )
        assert "supernet's recipe" in said
        assert name in said
    for name in NUMERIC:
        if name not in ("epochs", "clip_grad_norm", "ema_decay", "loader_workers"):
            assert f"`{name}` of a recipe is a" in train(lab, f"epochs: 3\n{name}: null\n")
    if text.lstrip("-").startswith("."):
        said = train(lab, f"epochs: 3\noptimizer_options: {{eps: {text}}}\n")
        assert "optimizer_options" in said


@pytest.mark.parametrize("text", ["null", "yes", "1", "1.5", "[adamw]", "{a: 1}", "2020-01-01"])
@pytest.mark.parametrize("name", ["optimizer", "schedule"])
def test_what_is_no_name_is_refused(lab, name, text) -> None:
    assert f"`{name}` of a recipe is a name" in train(lab, f"epochs: 3\n{name}: {text}\n")


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("adamw", "{bogus: 1}"),
        ("adamw", "{betas: 3}"),
        ("muon", "{betas: 3}"),
        ("muon", "{betas: [1, 2, 3]}"),
        ("adamw", "{eps: null}"),
        ("lbfgs", "{}"),
        ("no-such", "{}"),
    ],
)
def test_an_optimizer_that_fails_is_refused_before_training(lab, optimizer, options) -> None:
    said = train(lab, f"epochs: 3\noptimizer: {optimizer}\noptimizer_options: {options}\n")
    assert optimizer in said


def test_checking_an_optimizer_draws_no_random_number() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    for name in ("adamw", "muon", "lamb"):
        _check_update(Recipe(epochs=1, optimizer=name))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_key_that_stands_twice_is_named_with_its_line(lab) -> None:
    said = train(lab, "epochs: 3\nlr: 1e-3\nhflip: 0.5\nlr: 1e-4\n")
    assert "recipe.yaml, line 4 (lr: 1e-4): lr: this key stands here twice" in said
    said = train(lab, "epochs: 3\noptimizer_options:\n  a: 1\n  a: 2\n")
    assert "recipe.yaml, line 4 (a: 2): optimizer_options.a: this key stands here twice" in said
    Path("twice.yaml").write_text(SPACE + "order: any\n")
    assert "line 7 (order: any): order: this key stands here twice" in lab.refused(
        "space", "twice.yaml"
    )
    Path("supernet.yaml").write_text("training: digit-pairs\nstrata: 2\nstrata: 3\n")
    said = lab.refused(
        *("search", "digit-pairs-vit", "--evaluator", "supernet"),
        *("--supernet-recipe", "supernet.yaml"),
    )
    assert "supernet.yaml, line 3 (strata: 3): strata: this key stands here twice" in said
    Path("there").mkdir()
    Path("there/config.yaml").write_text("format: 1\nformat: 1\n")
    assert "format: this key stands here twice" in lab.refused("verify", "there")


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "is empty"),
        (b"\xff\xfe", "cannot be read"),
        (b"epochs: [3", "is not YAML"),
        (b"- 3", "is a mapping of its fields, but got [3]"),
        (b"3", "is a mapping of its fields, but got 3"),
        (b"3: 4", "is no text"),
        (b"epochs: 3\nspeed: 1\n", "no field 'speed'"),
        (b"lr: 1", "needs `epochs`"),
        (b"epochs: 1" + b"0" * 400, "is a number from 1 to 100000"),
        (b"epochs: " + b"9" * 5000, "not a plain value"),
        (b"!!python/object/apply:os.system ['touch ran']", "tag"),
        (b"epochs: 3\nlr: !!python/name:os.system", "constructor"),
        (b"[" * 5000, "nests"),
        (b"a: &a [*a]", "alias inside itself"),
    ],
)
def test_what_is_no_recipe_is_refused(lab, content, rule) -> None:
    Path("recipe.yaml").write_bytes(content)
    arguments = ("train", f"{BACKBONE}: V2", "--to", "there", "--recipe", "recipe.yaml")
    assert rule in lab.refused(*arguments)
    assert not Path("ran").exists()


def test_a_written_document_is_read_as_what_it_was() -> None:
    document = {"a": "1e3", "b": 1e-5, "c": "010", "d": ["1.5e2", 3, None, True], "e": {7: 0.5}}
    text = write_yaml(document)
    assert read_yaml(text, {}, number_keys=True) == document
    # Whoever reads it by YAML 1.1 as well.
    assert yaml.safe_load(text) == document


def test_spaces_are_read_by_the_same_reader() -> None:
    assert Space.from_yaml(SPACE, "here").name == "tiny"
