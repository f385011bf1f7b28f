"""The start of a search is measured once on each split, whatever ends the search meanwhile."""

from dataclasses import replace

import pytest
import torch
from fakes import DriverKilledError
from safetensors.torch import save_file
from supernet_lab import SupernetLab

from sharedattn.backbones import build
from sharedattn.data import open_data
from sharedattn.search.evaluators.base import measure
from sharedattn.search.executors.process_group import in_processes
from sharedattn.training.trainer import evaluate
from sharedattn.weights.pretrained import load_pretrained, weights_digest


class StartedLab(SupernetLab):
    """A supernet that starts from weights in a file."""

    @property
    def evaluator(self):
        evaluator = super().evaluator
        path = self.folder / "start.safetensors"
        supernet = evaluator.supernet
        if not path.exists():
            torch.manual_seed(5)
            save_file(build(supernet.largest_network).state_dict(), path)
        digest = weights_digest(load_pretrained(path, supernet.space.backbone))
        supernet = replace(supernet, pretrained=str(path), pretrained_sha256=digest)
        return replace(evaluator, supernet=supernet)


def test_a_killed_search_does_not_measure_its_start_again(tmp_path, few_pairs):
    lab = StartedLab(tmp_path)
    with pytest.raises(DriverKilledError):
        # Killed once the training of the supernet has begun.
        lab.run(num_trials=3, die_after=(1, None, None))
    shared, begun = lab.evaluator, lab.summary()
    assert lab.executors[0].evaluated == [shared.supernet_identity.key]
    data = open_data(shared.scratch.data)
    network = shared.supernet.pretrained_network(data)
    found = {s: evaluate(network, data, s, batch_size=32) for s in ("validation", "test")}
    params = sum(parameter.numel() for parameter in network.parameters())
    assert (begun.start.top1, begun.start.num_images) == (found["validation"].quality, 400)
    assert (begun.start.params, begun.start.test_top1) == (params, None)
    assert begun.rows == []

    ended = lab.run(num_trials=3)
    # The supernet, and the start on the test split.
    assert len(lab.executors[0].evaluated) == 2
    tested = replace(begun.start, test_top1=found["test"].quality, num_test_images=400)
    assert ended.start == tested
    again = lab.run(num_trials=5)
    assert lab.executors[0].evaluated == []
    assert again.start == tested


def test_a_search_from_an_initialisation_has_no_start(tmp_path, few_pairs):
    assert SupernetLab(tmp_path).run(num_trials=2).start is None


@pytest.mark.slow
def test_two_processes_measure_the_start_as_one_does(tmp_path):
    shared = StartedLab(tmp_path).evaluator
    task = shared.start_task("validation")
    alone, together = measure(shared, task), measure(in_processes(shared, 2), task)
    assert (together.top1, together.num_images) == (alone.top1, alone.num_images)
    assert together.device == "cpu x2"
