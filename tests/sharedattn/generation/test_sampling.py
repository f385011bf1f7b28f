"""Images drawn with networks whose predictions are exact for data of a closed form."""

import pytest
import torch
from denoisers import TinyDenoiser

from sharedattn.generation.sampling import draw_images
from sharedattn.training.tasks.diffusion import signal_shares

pytest.importorskip("diffusers")


class Exact(TinyDenoiser):
    """The best prediction for pixels of a normal distribution, each by itself."""

    def __init__(self, mean: float, deviation: float) -> None:
        super().__init__(in_chans=2, side=5)
        self._mean, self._variance = mean, deviation**2

    def forward(self, noisy_BCYX, steps_B, placement=None):
        share = signal_shares(noisy_BCYX.device)[steps_B][:, None, None, None]
        rest = noisy_BCYX - share.sqrt() * self._mean
        return (1 - share).sqrt() * rest / (share * self._variance + 1 - share)


def test_data_of_one_image_is_drawn_whatever_the_noise():
    drawn = draw_images(Exact(mean=0.25, deviation=0.0), 67, num_steps=7)
    assert drawn.shape == (67, 2, 5, 5)
    torch.testing.assert_close(drawn, torch.full_like(drawn, 0.25), atol=1e-3, rtol=0)


def test_data_of_a_normal_distribution_has_its_moments():
    drawn = draw_images(Exact(mean=-0.1, deviation=0.2), 200, seed=3)
    assert drawn.mean().item() == pytest.approx(-0.1, abs=0.01)
    assert drawn.std().item() == pytest.approx(0.2, rel=0.1)
    assert drawn.abs().max() <= 1.0


def test_seeds_say_what_is_drawn_and_batches_do_not():
    torch.manual_seed(0)
    network = TinyDenoiser(side=7).train()
    state = torch.get_rng_state()
    many = draw_images(network, 70, seed=5, num_steps=3)
    assert torch.get_rng_state().equal(state) and not network.training
    torch.testing.assert_close(draw_images(network, 70, seed=5, num_steps=3), many)
    assert not draw_images(network, 70, seed=6, num_steps=3).allclose(many)
