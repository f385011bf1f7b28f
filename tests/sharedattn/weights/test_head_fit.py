"""A new head is a ridge regression, scaled by its leave-one-out predictions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.linear_model import Ridge

from sharedattn.backbones import build
from sharedattn.data import DataConfig, open_data
from sharedattn.recipe import Recipe
from sharedattn.testing.tiny_backbones import TINY, tiny_backbone
from sharedattn.weights.head_fit import (
    RIDGE,
    fitted_head,
    num_fitted_images,
    solve_head,
)
from sharedattn.weights.pretrained import TrainedModel, with_new_head
from sharedattn.weights.published import head_name, published

PAIRS = DataConfig(name="digit-pairs", image_size=16, in_chans=1)


def test_a_case_solved_by_hand() -> None:
    # x'x = 4, so the penalty is 4 RIDGE, and x'y = 2. Every image is right without itself, so the
    # scale is the largest, log((C - 1) N).
    features, labels = torch.tensor([[-1.0], [-1.0], [1.0], [1.0]]), torch.tensor([0, 0, 1, 1])
    weight, bias = solve_head(features + 5, labels, 2)
    slope = math.log(4) * 2 / (4 + 4 * RIDGE)
    assert weight.tolist() == [[pytest.approx(-slope)], [pytest.approx(slope)]]
    middle = math.log(4) / 2
    assert bias.tolist() == [
        pytest.approx(middle + 5 * slope),
        pytest.approx(middle - 5 * slope),
    ]


@pytest.mark.parametrize(("num_images", "num_features"), [(97, 11), (13, 11), (11, 17)])
def test_equal_to_scikit_learn_and_to_leaving_out_one_by_one(
    num_images: int, num_features: int
) -> None:
    rng = np.random.default_rng(num_images)
    labels = rng.integers(0, 3, num_images)
    x = rng.normal(size=(num_images, num_features)) + 3
    x[:, :3] += 1.5 * np.eye(3)[labels]
    penalty = RIDGE * np.square(x - x.mean(0)).sum(0).mean()
    targets = np.eye(3)[labels]
    whole = Ridge(alpha=penalty).fit(x, targets)
    without = np.stack(
        [
            Ridge(alpha=penalty)
            .fit(np.delete(x, i, 0), np.delete(targets, i, 0))
            .predict(x[i : i + 1])[0]
            for i in range(num_images)
        ]
    )

    def cross_entropy(scale: float) -> float:
        logits = scale * without
        return float(np.mean(np.log(np.exp(logits).sum(1)) - logits[range(num_images), labels]))

    largest = math.log(2 * num_images)
    scale = minimize_scalar(
        cross_entropy, bounds=(0, largest), method="bounded", options={"xatol": 1e-9}
    ).x
    assert 0.5 < scale < largest - 0.5
    weight, bias = solve_head(torch.tensor(x), torch.tensor(labels), 3)
    np.testing.assert_allclose(weight.numpy(), scale * whole.coef_, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(bias.numpy(), scale * whole.intercept_, rtol=1e-5, atol=1e-6)


def test_features_that_tell_nothing_and_features_that_are_not_finite() -> None:
    labels = torch.arange(7) % 2
    weight, bias = solve_head(torch.full((7, 3), 2.0), labels, 2)
    assert weight.abs().max() == 0
    assert bias.isfinite().all()
    with pytest.raises(FloatingPointError, match="features of training images are not finite"):
        solve_head(torch.full((7, 3), math.nan), labels, 2)


@pytest.mark.parametrize(
    ("num_train", "num_fitted"), [(1, 1), (29, 29), (67, 66), (1400, 1400), (5003, 4096)]
)
def test_the_number_of_images(
    monkeypatch: pytest.MonkeyPatch, num_train: int, num_fitted: int
) -> None:
    monkeypatch.setattr("sharedattn.data.digit_pairs.PAIRS_PER_EPOCH", num_train)
    assert num_fitted_images(open_data(PAIRS)) == num_fitted


# A UNet has no classifier.
@pytest.mark.parametrize("base_name", [name for name in TINY if name != "unet2d"])
def test_the_features_are_what_the_head_of_every_family_sees(
    base_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sharedattn.data.digit_pairs.PAIRS_PER_EPOCH", 61)
    data = open_data(PAIRS)
    backbone = replace(tiny_backbone(base_name), num_classes=7)
    head = head_name(backbone)
    assert head is not None
    torch.manual_seed(0)
    trained = build(published(backbone)).eval()
    num_features = trained.get_submodule(head).weight.shape[1]
    # A head that gives the features themselves as its logits.
    torch.manual_seed(0)
    bare = build(published(replace(backbone, num_classes=num_features))).eval()
    state = {n: w for n, w in trained.state_dict().items() if not n.startswith(f"{head}.")}
    state |= {f"{head}.weight": torch.eye(num_features), f"{head}.bias": torch.zeros(num_features)}
    bare.load_state_dict(state)
    batches = data.train_batches(
        Recipe(epochs=1, batch_size=61), seed=3, epoch=0, device=torch.device("cpu")
    )
    [(images, labels)] = list(batches)
    with torch.no_grad():
        weight, bias = solve_head(bare(images), labels, 2)
    found = fitted_head(trained, head, data, seed=3)
    torch.testing.assert_close(found[0], weight.float(), rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(found[1], bias.float(), rtol=1e-2, atol=1e-3)

    model = TrainedModel(backbone=backbone, num_classes=7, state=dict(trained.state_dict()))
    drawn = torch.random.get_rng_state()
    first, again = (with_new_head(model, data, seed=3) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), drawn)
    other = with_new_head(model, data, seed=5)
    of_head = {f"{head}.weight", f"{head}.bias"}
    assert torch.equal(first[f"{head}.weight"], found[0])
    assert not torch.equal(first[f"{head}.weight"], other[f"{head}.weight"])
    for name, tensor in model.state.items():
        assert torch.equal(first[name], again[name])
        assert name in of_head or torch.equal(first[name], tensor)
