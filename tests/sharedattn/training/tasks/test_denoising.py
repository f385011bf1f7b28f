"""Noise, its loss and its measure, by hand and against diffusers."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from denoisers import TinyDenoiser

from sharedattn.data import DataConfig, open_data
from sharedattn.errors import InputError
from sharedattn.recipe import RECIPES, Recipe
from sharedattn.training.tasks.denoising import Denoising, NoiseAccumulator
from sharedattn.training.tasks.diffusion import (
    BETA_SCHEDULE,
    NUM_STEPS,
    fixed_noise,
    noised,
    random_noise,
    signal_shares,
)
from sharedattn.training.tasks.interface import Metrics
from sharedattn.training.tasks.registry import task_training
from sharedattn.training.trainer import Trainer, evaluate

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits():
    return open_data(DataConfig(name="digits", task="denoise"))


def test_the_schedule_is_nichols_and_dhariwals() -> None:
    shares = signal_shares(CPU).double()
    start = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    # Until a beta is cut off at 0.999, the product of all telescopes to f(t) / f(0).
    for step in (0, 1, 499, 997):
        level = math.cos(((step + 1) / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2
        assert shares[step].item() == pytest.approx(level / start, rel=1e-5)
    assert (shares[-1] / shares[-2]).item() == pytest.approx(1e-3, rel=1e-4)


def test_noisy_images_are_those_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=NUM_STEPS, beta_schedule=BETA_SCHEDULE)
    torch.testing.assert_close(scheduler.alphas_cumprod, signal_shares(CPU), atol=1e-6, rtol=0)
    torch.manual_seed(1)
    images = torch.randn(11, 3, 5, 7)
    noise, steps = random_noise(images)
    theirs = scheduler.add_noise(images, noise, steps)
    torch.testing.assert_close(theirs, noised(images, noise, steps), atol=1e-5, rtol=0)


def test_noise_of_a_step_solved_by_hand() -> None:
    images, noise = torch.full((1, 1, 1, 2), 0.5), torch.tensor([[[[2.0, -1.0]]]])
    share = signal_shares(CPU)[300].item()
    x, y = noised(images, noise, torch.tensor([300])).flatten().tolist()
    assert x == pytest.approx(0.5 * math.sqrt(share) + 2.0 * math.sqrt(1 - share), rel=1e-6)
    assert y == pytest.approx(0.5 * math.sqrt(share) - 1.0 * math.sqrt(1 - share), rel=1e-6)


def test_fixed_noise_depends_on_the_number_alone() -> None:
    images = torch.zeros(4, 1, 5, 3)
    together, steps = fixed_noise(images, torch.tensor([7, 0, 7, 1003]))
    alone, step = fixed_noise(images[:1], torch.tensor([1003]))
    assert together[3].equal(alone[0]) and steps[3] == step[0]
    assert together[0].equal(together[2]) and not together[0].equal(together[1])
    # Number 0 has the middle step, and 1003 that of 3: 3 * 619 + 500 = 2357.
    assert steps.tolist() == [(7 * 619 + 500) % 1000, 500, 833, 357]


def test_a_thousand_images_have_every_step_once_and_noise_is_standard() -> None:
    images = torch.zeros(1000, 1, 4, 4)
    noise, steps = fixed_noise(images, torch.arange(1000))
    assert sorted(steps.tolist()) == list(range(1000))
    assert noise.mean().item() == pytest.approx(0.0, abs=4 / math.sqrt(16_000))
    assert noise.var().item() == pytest.approx(1.0, abs=4 * math.sqrt(2 / 16_000))
    # A hundred of them has about ten of each hundred steps.
    counts = torch.bincount(steps[:100] // 100, minlength=10)
    assert counts.min() >= 8 and counts.max() <= 13


def test_r2_and_the_mean_squared_error_by_hand() -> None:
    noise = torch.tensor([[[[1.0, -2.0]]], [[[0.0, 3.0]]], [[[2.0, 0.0]]]])
    predicted = torch.tensor([[[[1.0, -1.0]]], [[[1.0, 3.0]]], [[[0.0, 0.0]]]])
    tally = NoiseAccumulator(CPU)
    tally.add(predicted[:2], noise[:2])
    tally.add(predicted[2:], noise[2:])
    metrics = tally.metrics("validation")
    # Squared errors 0, 1, 1, 0, 4, 0 of 6 numbers, whose squares are 1, 4, 0, 9, 4, 0.
    assert metrics.loss == pytest.approx(6 / 6)
    assert metrics.quality == pytest.approx(1 - 6 / 18)
    assert (metrics.name, metrics.num_images) == ("denoise_r2", 3)
    assert metrics.further == {"denoise_mse": metrics.loss}
    assert Metrics.from_json(metrics.to_json()) == metrics


@pytest.mark.parametrize(("predicted", "quality"), [(0.0, 0.0), (5.0, 0.0), (None, 1.0)])
def test_no_prediction_has_0_and_the_noise_itself_1(predicted, quality) -> None:
    noise = torch.randn(3, 1, 5, 7)
    tally = NoiseAccumulator(CPU)
    tally.add(noise if predicted is None else torch.full_like(noise, predicted), noise)
    assert tally.metrics("test").quality == pytest.approx(quality, abs=1e-12)


def test_the_loss_is_the_mean_squared_error() -> None:
    task = task_training(TinyDenoiser())
    assert isinstance(task, Denoising)
    torch.manual_seed(2)
    outputs, noise = torch.randn(2, 5, 3, 3, 2).unbind()
    by_hand = sum((a - b) ** 2 for a, b in zip(outputs.flatten(), noise.flatten(), strict=True))
    assert task.loss(outputs, noise, Recipe(epochs=1)).item() == pytest.approx(by_hand.item() / 90)


def test_training_noise_is_torchs_and_evaluations_is_fixed() -> None:
    task = task_training(TinyDenoiser())
    images, numbers = torch.randn(6, 1, 16, 16), torch.arange(6)
    torch.manual_seed(5)
    (noisy, steps), noise = task.training_example(images, numbers)
    torch.manual_seed(5)
    assert steps.equal(torch.randint(NUM_STEPS, (6,)))
    assert noise.equal(torch.randn(6, 1, 16, 16)) and noisy.equal(noised(images, noise, steps))
    state = torch.get_rng_state()
    one, other = (task.evaluation_example(images, numbers) for _ in range(2))
    assert one.targets.equal(other.targets) and one.inputs[1].equal(other.inputs[1])
    assert torch.get_rng_state().equal(state)


def test_networks_are_measured_on_equal_noise(digits) -> None:
    seen = []

    class Recording(TinyDenoiser):
        def forward(self, noisy_BCYX, steps_B, placement=None):
            seen.append((noisy_BCYX, steps_B))
            return super().forward(noisy_BCYX, steps_B, placement)

    for batch_size in (718, 359):
        evaluate(Recording(), digits, "validation", batch_size=batch_size)
    # 359 images with 4 noises each, whatever the batches.
    first, second = (
        [torch.cat(parts) for parts in zip(*seen[a:b], strict=True)] for a, b in ((0, 2), (2, 6))
    )
    assert len(first[0]) == 4 * 359
    assert first[0].equal(second[0]) and first[1].equal(second[1])


def test_a_network_that_predicts_nothing_has_the_noises_own_variance(digits) -> None:
    network = TinyDenoiser()
    torch.nn.init.zeros_(network.second.weight)
    torch.nn.init.zeros_(network.second.bias)
    metrics = evaluate(network, digits, "test", batch_size=300)
    assert metrics.quality == 0.0 and metrics.num_images == 4 * 360
    assert metrics.loss == pytest.approx(1.0, abs=4 * math.sqrt(2 / (1440 * 256)))


def test_a_training_learns_and_resumes_to_the_same_weights(digits) -> None:
    recipe = Recipe(epochs=2, batch_size=49, lr=1e-2, ema_decay=0.9)
    torch.manual_seed(0)
    network = TinyDenoiser()
    start = evaluate(network, digits, "validation", batch_size=359)

    def trainer() -> Trainer:
        return Trainer(None, digits, recipe, seed=3, network=copy.deepcopy(network))

    whole = trainer()
    whole.run_epoch()
    half = copy.deepcopy(whole.state_dict())
    whole.run_epoch()
    resumed = trainer()
    resumed.load_state_dict(half)
    resumed.run_epoch()
    assert resumed.curve == whole.curve
    found = whole.result()
    assert found.metrics.name == "denoise_r2"
    assert found.metrics.loss < 0.6 * start.loss and found.metrics.quality > 0.3


def test_halves_of_a_batch_have_noise_of_their_own_and_equal_weight(digits) -> None:
    recipe = Recipe(epochs=1, batch_size=539, lr=0.0)
    trainer = Trainer(None, digits, recipe, seed=3, network=TinyDenoiser())
    trainer._micro_batches = 2
    point = trainer.run_epoch()
    assert point.micro_batches == 2
    # Nothing is learned at a rate of 0: training sees the loss of validation, on other noise.
    assert point.train_loss == pytest.approx(point.validation.loss, rel=0.05)


def test_recipes_with_labels_are_refused(digits) -> None:
    recipe = Recipe(epochs=1, label_smoothing=0.1)
    with pytest.raises(InputError, match="`label_smoothing` of the recipe is 0.1, but to denoise"):
        Trainer(None, digits, recipe, seed=0, network=TinyDenoiser())
    task_training(TinyDenoiser()).check_recipe(RECIPES["small-denoise"])
