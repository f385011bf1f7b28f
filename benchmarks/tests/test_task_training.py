"""The measurement of segmenters and detectors, at a tiny size."""

import pytest
from data_makers import make
from task_training import curve, training

TINY = {
    "masks": "pvt_v2_b0(head=semantic_fpn)@32x64: V1 | V1 | V1 | V1",
    "boxes": "pvt_v2_b0(anchor_scale=2,head=retinanet)@32x64: V1 | V1 | V1 | V1",
}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "quality"), [("masks", "miou"), ("boxes", "map50")])
def test_each_epoch_has_its_quality(tmp_path, kind, quality):
    make(kind, tmp_path / "made", 60, (32, 64))
    trainer, data = training(TINY[kind], tmp_path / "made", seed=0, epochs=1)
    [point] = curve(trainer)
    assert (point.epoch, point.metrics.name) == (1, quality)
    assert (data.num_classes, point.metrics.num_images) == ({"masks": 6, "boxes": 5}[kind], 9)
    assert 0.0 <= point.metrics.quality <= 1.0 and point.cpu_s > 0.0
