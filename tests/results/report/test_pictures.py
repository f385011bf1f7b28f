"""Pictures of what segmenters and detectors say, and of what generators draw, by hand."""

import numpy as np
import pytest
import torch
from denoisers import TinyDenoiser
from PIL import Image
from scenes import write_boxes, write_masks

from sharedattn.backbones import build, resolve
from sharedattn.data import DataConfig, open_data
from sharedattn.data.labels import IGNORED
from sharedattn.data.whole_digits import whole_digits
from sharedattn.placement import NetworkSpec
from sharedattn.results.database.store import Store
from sharedattn.results.front.summary import StudySummary
from sharedattn.results.report import pictures_path
from sharedattn.results.report.pictures import (
    COLOURS,
    GAP,
    LEGEND_HEIGHT,
    NUM_COLUMNS,
    NUM_IMAGES,
    NUM_ROWS,
    _boxes,
    _masked,
    write_pictures,
)
from sharedattn.search.cli.main import main
from sharedattn.training.tasks.diffusion import signal_shares

NETWORKS = {
    "segment": (
        "vit(depth=1,embed_dim=22,head=eanet,num_classes=3,num_heads=2,patch_size=2)@22x34: V1"
    ),
    "detect": (
        "pvt_v2(depths=1-1-1,embed_dims=6-10-14,mlp_ratios=2-1-1,num_heads=1-2-2,sr_ratios=2-1-1,"
        "head=retinanet,num_classes=2)@22x34: V1 | V1 | V1"
    ),
}
WRITERS = {"segment": write_masks, "detect": write_boxes}


def test_a_mask_colours_its_classes_and_leaves_the_rest():
    pixels = np.full((3, 5, 3), 100, dtype=np.uint8)
    mask = np.array([[0, 1, 1, IGNORED, 2]] * 3)
    drawn = np.asarray(_masked(pixels, mask))
    factor = drawn.shape[1] // 5
    assert drawn.shape == (3 * factor, 5 * factor, 3) and factor == 39  # 195 of at least 192
    row = drawn[0, ::factor]
    assert row[0].tolist() == row[3].tolist() == [100, 100, 100]
    mixed = [round(0.4 * 100 + 0.6 * value) for value in COLOURS[0]]
    assert row[1].tolist() == row[2].tolist() == mixed
    assert row[4].tolist() == [round(0.4 * 100 + 0.6 * value) for value in COLOURS[1]]


def test_a_box_is_drawn_on_its_edges_alone():
    pixels = np.zeros((100, 200, 3), dtype=np.uint8)
    drawn = np.asarray(_boxes(pixels, [([20.0, 40.0, 90.0, 80.0], 2, 0.75)], ("a", "b", "c")))
    colour = list(COLOURS[2])
    assert drawn[79, 50].tolist() == colour and drawn[60, 89].tolist() == colour
    assert drawn[60, 20].tolist() == colour and drawn[60, 21].tolist() == colour
    assert not drawn[60, 22].any() and not drawn[81, 50].any() and not drawn[60, 90].any()


@pytest.mark.parametrize("task", NETWORKS)
def test_six_images_are_drawn_twice(task, tmp_path):
    data = open_data(
        DataConfig(name=str(WRITERS[task](tmp_path / "data")), image_size=(22, 34), task=task)
    )
    network = build(resolve(NetworkSpec.parse(NETWORKS[task])))
    write_pictures(tmp_path / "pictures.png", network, data)
    with Image.open(tmp_path / "pictures.png") as sheet:
        # 34 pixels are at least 192 six times over.
        width, height = 6 * 34 + GAP, 6 * 22 + GAP
        legend = LEGEND_HEIGHT if task == "segment" else 0
        assert sheet.size == (NUM_IMAGES * width - GAP, 2 * height - GAP + legend)
        pixels = np.asarray(sheet.convert("RGB"))
    # The rectangles of the truth: coloured whole, or framed.
    colours = {tuple(p) for p in pixels[: height - GAP].reshape(-1, 3).tolist()}
    if task == "detect":
        assert set(COLOURS[:2]) <= colours
    else:
        drawn = [
            tuple(
                round(0.4 * value + 0.6 * colour) for value, colour in zip(own, over, strict=True)
            )
            for own, over in (((200, 40, 40), COLOURS[0]), ((40, 60, 220), COLOURS[1]))
        ]
        assert set(drawn) <= colours


def test_a_generators_digits_stand_below_real_ones(tmp_path):
    pytest.importorskip("diffusers")
    data = open_data(DataConfig(name="digits", task="denoise"))
    # Predicts no noise at all.
    network = TinyDenoiser()
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    note = write_pictures(tmp_path / "pictures.png", network, data)
    assert note.startswith("Fréchet distance ") and "of 539 images each" in note
    with Image.open(tmp_path / "pictures.png") as sheet:
        assert sheet.info["note"] == note
        side = 6 * 16 + GAP  # 16 pixels are at least 96 six times over
        assert sheet.size == (NUM_COLUMNS * side - GAP, (1 + NUM_ROWS) * side - GAP)
        pixels = np.asarray(sheet.convert("RGB"))[..., 0]
    # The second of twelve spread over 359 images, with four noises each: 119 of the latter.
    real = whole_digits()["validation"][0][29, 0].numpy()
    own = np.rint(255 * (real + 1) / 2)
    np.testing.assert_array_equal(pixels[:96:6, side : side + 96 : 6], own)
    # Then each image is what it begins as over the image's share there, cut to its range.
    begun = torch.randn((539, 1, 16, 16), generator=torch.Generator().manual_seed(0))[0, 0]
    share = signal_shares(torch.device("cpu"))[980]
    drawn = np.rint(255 * ((begun / share.sqrt()).clamp(-1, 1).numpy() + 1) / 2)
    np.testing.assert_allclose(pixels[side : side + 96 : 6, :96:6], drawn, atol=1)


def test_a_report_shows_the_pictures_beside_it(tmp_path, capsys):
    space, table = tmp_path / "space.yaml", tmp_path / "table.json"
    space.write_text(
        f"name: s\nbackbone: {NETWORKS['segment'].split(':')[0]}\norder: any\nstages:\n"
        "  - {depth: 1..1, counts: {V: 0..1, N: 0..1}}\n"
    )
    table.write_text('{"V1": 0.5, "N1": 0.25}')
    asked = f"search {space} --evaluator table --table {table} --trials 2 --workers 1"
    out = tmp_path / "out"
    assert main([*asked.split(), "--confirm-seeds", "1", "--out", str(out)]) == 0
    capsys.readouterr()
    (report,) = out.glob("*/report.html")
    # The page may fetch nothing at all, and shows no empty frame.
    assert "img-src" not in report.read_text() and "<img" not in report.read_text()
    with Store.open(f"sqlite:///{out}/sharedattn.db", read_only=True) as store:
        summary = StudySummary.read(store, store.studies()[0])
    assert summary.knee is not None
    Image.new("RGB", (7, 5)).save(pictures_path(report, summary.knee), format="PNG")
    assert main(["report", "--out", str(out)]) == 0
    page = report.read_text()
    assert "; img-src data:" in page and 'src="data:image/png;base64,' in page
    assert "What the knee says" in page and "above the truth" in page
