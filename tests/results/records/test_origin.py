"""What an exported network's training started from."""

import pytest

from sharedattn.errors import InputError
from sharedattn.results.records import Origin


@pytest.mark.parametrize(
    ("origin", "document", "said"),
    [
        (
            Origin(source="model", epochs=1),
            {"source": "model", "epochs": 1},
            "the weights of an export, after 1 epoch",
        ),
        (Origin(source="timm"), {"source": "timm"}, "the weights of a trained model"),
        (
            Origin(source="timm", trained_classes=1000, head_images=97),
            {"source": "timm", "trained_classes": 1000, "head_images": 97},
            "the weights of a trained model of 1,000 classes, with a new head fitted to 97 "
            "training images",
        ),
    ],
)
def test_its_document_and_its_sentence(origin, document, said):
    assert origin.to_json() == document
    assert Origin.from_json(document) == origin
    assert str(origin) == said


def test_a_document_of_something_else():
    with pytest.raises(InputError, match="whole numbers of at least 0"):
        Origin.from_json({"source": "model", "epochs": -1})
    with pytest.raises(TypeError):
        Origin.from_json({"epochs": 1})
