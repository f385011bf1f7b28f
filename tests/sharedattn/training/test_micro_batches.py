"""Micro-batches: the gradients of the whole batch, when memory does not hold it."""

import io
import re
from dataclasses import replace

import pytest
import torch
from shades import RECIPE, SPEC, Shades
from torch.nn import functional as F

from sharedattn.backbones import build
from sharedattn.distributed import Rank
from sharedattn.placement import Envelope, Placement
from sharedattn.supernet.trainer import SupernetRecipe, SupernetTrainer, supernet_network
from sharedattn.training import trainer as training_module
from sharedattn.training.micro_batches import parts_of
from sharedattn.training.trainer import Epoch, Trainer, initialise

SGD = replace(RECIPE, optimizer="sgd", lr=0.1, warmup_epochs=0.0)
SAID = "made-up memory: tried to allocate 3 GiB"


class Precise(Shades):
    """Float64 images; labels are mixed as by mixup where asked."""

    def __init__(self, mixed=False):
        super().__init__()
        self.mixed = mixed

    def train_batches(self, recipe, **arguments):
        for images, labels in super().train_batches(recipe, **arguments):
            images = images.double()
            if self.mixed:
                soft = F.one_hot(labels, 3).double()
                images, labels = (0.7 * x + 0.3 * x.flip(0) for x in (images, soft))
            yield images, labels

    def eval_batches(self, split, **arguments):
        for images, labels in super().eval_batches(split, **arguments):
            yield images.double(), labels


def narrow(network, holds, only=None):
    """The network, made to run out of memory on batches of more than `holds` images.

    Args:
        network: the network, changed in place.
        holds: number of images that memory holds in training.
        only: the placement that runs out, or None for any.
    """
    run, network.sizes = network.run, []

    def run_within(images, placement=None, **collect):
        if torch.is_grad_enabled():
            if len(images) > holds and only in (None, placement):
                raise torch.OutOfMemoryError(SAID)
            network.sizes.append(len(images))
        return run(images, placement, **collect)

    network.run = run_within
    return network


def trainer(recipe=SGD, *, holds=10**6, data=None, rank=None):
    torch.manual_seed(0)
    network = build(SPEC)
    initialise(network, "torch")
    network = narrow(network.double(), holds)
    ranked = {} if rank is None else {"rank": rank}
    return Trainer(SPEC, data or Precise(), recipe, seed=0, network=network, **ranked)


def finish(training):
    while not training.finished:
        training.run_epoch()
    return training.result()


@pytest.mark.parametrize(("size", "num_parts"), [(7, 2), (11, 3), (2, 5), (1, 2), (13, 1)])
def test_parts_are_nearly_equal_and_make_up_the_batch(size, num_parts):
    images, labels = torch.randn(size, 1, 2, 2), torch.arange(size)
    parts = list(parts_of(images, labels, num_parts))
    sizes = [len(part_labels) for _, part_labels, _ in parts]
    assert len(parts) == min(size, num_parts) and max(sizes) - min(sizes) <= 1
    assert torch.equal(torch.cat([part for part, _, _ in parts]), images)
    assert torch.equal(torch.cat([part for _, part, _ in parts]), labels)
    assert [share for *_, share in parts] == [count / size for count in sizes]


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"label_smoothing": 0.1, "diagonality_weight": 0.5},
        {"batch_size": 11, "clip_grad_norm": 0.1},
        {"grad_checkpointing": True, "channels_last": True},
    ],
)
def test_halves_train_as_the_whole_batch_does(changes, mixed):
    recipe = replace(SGD, **changes)
    size = recipe.batch_size
    whole = finish(trainer(recipe, data=Precise(mixed)))
    halved = finish(trainer(recipe, holds=size - 1, data=Precise(mixed)))
    assert set(whole.network.sizes) == {size}
    assert set(halved.network.sizes) == {size // 2 + 1, size // 2}
    for (name, one), other in zip(
        whole.network.named_parameters(), halved.network.parameters(), strict=True
    ):
        torch.testing.assert_close(other, one, rtol=1e-11, atol=1e-13, msg=name)
    for ours, theirs in zip(halved.curve, whole.curve, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-6)
        assert (ours.micro_batches, theirs.micro_batches) == (2, 1)


def test_the_curve_says_from_when_on_batches_were_halved():
    training = trainer()
    training.run_epoch()
    narrow(training.network, 6)
    training._run = training.network.run
    training.run_epoch()
    training.run_epoch()
    documents = [epoch.to_json() for epoch in training.curve]
    assert [document.get("micro_batches") for document in documents] == [None, 2, 2]
    assert [Epoch.from_json(document) for document in documents] == training.curve


def test_a_training_that_was_halved_is_resumed_in_halves():
    first = trainer(holds=6)
    first.run_epoch()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    second = trainer(holds=6)
    second.load_state_dict(state)
    assert finish(second).curve == finish(first).curve
    # Without the failed attempt: each epoch has 5 batches in 2 parts.
    assert second.network.sizes == [4, 3] * 10
    del state["micro_batches"]
    earlier = trainer()
    earlier.load_state_dict(state)
    assert earlier.run_epoch().micro_batches == 1


@pytest.mark.parametrize(
    ("holds", "batch_size", "how"),
    [(3, 7, "7 images, run in 2 parts"), (0, 1, "1 images, run as a whole")],
)
def test_a_training_that_runs_out_again_fails_and_says_what_to_do(holds, batch_size, how):
    rule = (
        f"ran out of memory on a training batch of {how}; lower `batch_size` of the recipe, set "
        f"its `grad_checkpointing` or `amp: bfloat16`, or give the trial more of the GPU. torch "
        f"says: {SAID}"
    )
    with pytest.raises(torch.OutOfMemoryError, match=re.escape(rule)):
        trainer(replace(SGD, batch_size=batch_size), holds=holds).run_epoch()


def test_the_update_itself_is_not_retried(monkeypatch):
    training = trainer()

    def step(closure=None):
        raise torch.OutOfMemoryError(SAID)

    monkeypatch.setattr(training._optimizer, "step", step)
    with pytest.raises(torch.OutOfMemoryError, match="7 images, run as a whole; lower"):
        training.run_epoch()


def test_all_processes_go_on_in_halves_when_one_ran_out(monkeypatch):
    monkeypatch.setattr(Rank, "average_gradients", lambda self, parameters: None)
    monkeypatch.setattr(Rank, "sum_", lambda self, tensor: tensor.add_(1.0))
    training = trainer(replace(SGD, batch_size=14), rank=Rank(0, 2))
    assert training.run_epoch().micro_batches == 2
    assert set(training.network.sizes) == {7}
    training.network.sizes.clear()
    training.run_epoch()
    assert training.network.sizes == [4, 3] * 2


def test_processes_that_share_batch_norms_do_not_cut_a_batch(monkeypatch):
    training = trainer(replace(SGD, batch_size=14), holds=6, rank=Rank(0, 2))
    monkeypatch.setattr(training_module, "_has_batch_norms", lambda network: True)
    # Halves would fit, but the other process would wait for norms of the whole.
    with pytest.raises(torch.OutOfMemoryError, match="7 images, run as a whole; lower"):
        training.run_epoch()


LARGEST, SMALLEST = Placement.parse("V2"), Placement.parse("V1")


class Fixed:
    """Draws the same placement at every update."""

    def sample(self, rng):
        return Placement.parse("V1L1")


def supernet(holds, **changes):
    recipe = SupernetRecipe(training=SGD, **changes)
    envelope = Envelope.of(LARGEST, SMALLEST, Fixed().sample(None))
    network = supernet_network(SPEC.backbone, envelope, recipe, seed=0).double()
    # The largest runs before the smallest, so that gradients of a failed pass are there.
    return SupernetTrainer(
        narrow(network, holds, only=SMALLEST),
        Precise(),
        recipe,
        largest=LARGEST,
        smallest=SMALLEST,
        sampler=Fixed(),
        seed=0,
    )


def test_a_supernet_trains_in_halves_as_by_whole_batches():
    whole, halved = supernet(7), supernet(6)
    for training in (whole, halved):
        finish(training)
    for one, other in zip(whole.network.parameters(), halved.network.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-11, atol=1e-13)
    assert [epoch.micro_batches for epoch in halved.curve] == [2, 2, 2]


def test_micro_batches_of_a_supernets_recipe_are_halved_as_well():
    training = supernet(1, micro_batches=7)
    training.run_epoch()
    assert set(training.network.sizes) == {1} and training.curve[0].micro_batches == 1
    with pytest.raises(torch.OutOfMemoryError, match="7 images, run in 7 parts; lower"):
        # Parts of one image cannot be cut.
        supernet(0, micro_batches=7).run_epoch()
