"""What the processes of a group are given to do: in a module that they can import by its name."""

import copy

import torch
from shades import SPEC, Shades

from sharedattn.training.trainer import Trainer


def whole(recipe, rank):
    """Curve and weights of a training in one go."""
    trainer = Trainer(SPEC, Shades(), recipe, seed=4, rank=rank)
    while not trainer.finished:
        trainer.run_epoch(validate=True)
    return trainer.result().curve, weights_of(trainer)


def resumed(recipe, rank):
    """The same in two goes, and the state between them."""
    first, second = (Trainer(SPEC, Shades(), recipe, seed=4, rank=rank) for _ in range(2))
    for _ in range(2):
        first.run_epoch(validate=True)
    state = first.state_dict()
    # An optimiser that has loaded a state works on its very tensors.
    second.load_state_dict(copy.deepcopy(state))
    while not second.finished:
        second.run_epoch(validate=True)
    return second.result().curve, weights_of(second), state


def averaged(rank):
    """Mean over processes of gradients 1, 2, ...; a parameter without one is left alone."""
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in (2, 3, 5)]
    for parameter in parameters[1:]:
        parameter.grad = torch.full_like(parameter, (1.0 + rank.index) * len(parameter))
    rank.average_gradients(parameters)
    return [None if p.grad is None else p.grad.tolist() for p in parameters]


def weights_of(trainer):
    return {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
