"""Several processes train one network as one process does, and each has its part of the work."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from group import run_group
from rank_jobs import averaged, resumed, weights_of, whole
from shades import RECIPE, SPEC, Shades

from sharedattn.distributed import ALONE, Rank
from sharedattn.training.trainer import Trainer

# No adaptive steps: they turn a gradient that is zero up to rounding into a whole step.
RECIPE = replace(
    RECIPE,
    epochs=4,
    batch_size=12,
    optimizer="sgd",
    lr=0.3,
    label_smoothing=0.1,
    clip_grad_norm=1.0,
    ema_decay=0.6,
    diagonality_weight=0.5,
)
DROPPING = replace(RECIPE, optimizer="adamw", lr=5e-3, drop_path_rate=0.5, rungs=(2,))


@pytest.mark.parametrize(("batch_size", "num_processes"), [(12, 1), (12, 2), (12, 3), (14, 7)])
def test_shares_are_equal_parts_of_a_batch_that_mix_by_themselves(batch_size, num_processes):
    ranks = [Rank(index, num_processes) for index in range(num_processes)]
    shares = [rank.shard_positions(batch_size) for rank in ranks]
    assert sorted(sum(shares, [])) == list(range(batch_size))
    for share in shares:
        assert len(share) == batch_size // num_processes
        # Reversed, a share has at each place what the reversed batch has there.
        reverse = list(reversed(range(batch_size)))
        assert list(reversed(share)) == [reverse[position] for position in share]


def test_odd_shares_are_equal_parts_too():
    assert [Rank(index, 2).shard_positions(6) for index in range(2)] == [[0, 1, 5], [2, 3, 4]]
    assert ALONE.shard_positions(5) == [0, 1, 2, 3, 4]


def test_processes_take_turns_at_batches():
    assert [list(Rank(index, 3).shard_batches("abcdefg")) for index in range(3)] == [
        ["a", "d", "g"],
        ["b", "e"],
        ["c", "f"],
    ]


def test_alone_nothing_is_sent():
    tensor = torch.tensor([2.0, 3.0])
    ALONE.sum_(tensor)
    parameter = torch.nn.Parameter(tensor.clone())
    parameter.grad = torch.tensor([5.0, 7.0])
    ALONE.average_gradients([parameter])
    assert tensor.tolist() == [2.0, 3.0] and parameter.grad.tolist() == [5.0, 7.0]


def assert_same(one, other, **tolerance):
    """Curves and weights agree, to the bit where no tolerance is given."""
    for ours, theirs in zip(one[0], other[0], strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, **tolerance or {"abs": 0})
        assert ours.validation.quality == theirs.validation.quality
        assert ours.validation.num_images == theirs.validation.num_images == 23
        assert ours.validation.loss == pytest.approx(
            theirs.validation.loss, **tolerance or {"abs": 0}
        )
    for name, tensor in one[1].items():
        torch.testing.assert_close(
            tensor, other[1][name], rtol=tolerance.get("rel", 0), atol=tolerance.get("abs", 0)
        )


@pytest.mark.slow
def test_processes_train_as_one_and_go_on_from_checkpoints():
    # Three, since sums of two have but one order; and one of them has no batch to evaluate.
    jobs = [partial(job, recipe) for recipe in (RECIPE, DROPPING) for job in (whole, resumed)]
    answers = run_group(3, [*jobs, averaged])
    *trainings, gradients = answers[0]
    for others in answers[1:]:
        for ours, theirs in zip(trainings, others, strict=False):
            assert_same(ours, theirs)
        assert others[-1] == gradients
    assert gradients == [None, [6.0] * 3, [10.0] * 5]
    plain, plain_resumed, dropping, dropping_resumed = trainings
    assert_same(plain_resumed, plain)
    assert_same(dropping_resumed, dropping)
    alone = whole(RECIPE, ALONE)
    assert alone[0][-1].train_loss < alone[0][0].train_loss - 0.1
    assert_same(plain, alone, rel=1e-4, abs=1e-6)
    # One process goes on from where three of them stopped.
    trainer = Trainer(SPEC, Shades(), RECIPE, seed=4)
    trainer.load_state_dict(plain_resumed[2])
    while not trainer.finished:
        trainer.run_epoch(validate=True)
    assert_same((trainer.curve, weights_of(trainer)), alone, rel=1e-4, abs=1e-6)


def test_processes_without_any_gradient_have_nothing_to_average():
    # No process group is there: whoever would wait for others would raise.
    layer = torch.nn.Linear(3, 5)
    Rank(1, 2).average_gradients(layer.parameters())
    assert layer.weight.grad is None
