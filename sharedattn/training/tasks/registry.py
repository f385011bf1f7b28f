"""The training of each task, by the head of a network."""

from __future__ import annotations

from sharedattn.networks.network import Network
from sharedattn.tasks import CLASSIFY, DENOISE, head_kind
from sharedattn.training.tasks.classification import Classification
from sharedattn.training.tasks.denoising import Denoising
from sharedattn.training.tasks.interface import TaskTraining


def task_training(network: Network) -> TaskTraining:
    """How a network is trained and measured, by the task of its head.

    Args:
        network: the network; also one without storage.
    """
    task = head_kind(network.backbone.head).task
    if task == CLASSIFY:
        return Classification(network)
    if task == DENOISE:
        return Denoising(network)
    # Imported here, since torchvision's detectors take a second that classifiers do not need.
    from sharedattn.training.tasks.detection import Detection
    from sharedattn.training.tasks.segmentation import Segmentation

    tasks: dict[str, type[TaskTraining]] = {"segment": Segmentation, "detect": Detection}
    return tasks[task](network)
