"""The plots: which are drawn, and that equal figures give equal files."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest

from sharedattn.placement import NetworkSpec
from sharedattn.results.analysis import Analysis, Figure, analyse
from sharedattn.results.analysis.plots import write_plots

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def analysis_of(spec_of, images_for) -> Callable[[str], Analysis]:
    def measure(placement: str) -> Analysis:
        spec: NetworkSpec = spec_of(placement)
        return analyse(spec, None, images_for(spec), init="torch", control_seeds=(1, 2))

    return measure


def comments(path: Path) -> str:
    """What is written in a plot: its texts are paths, each with its text as a comment."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    root = ElementTree.parse(path, parser).getroot()
    assert root.tag == f"{SVG}svg"
    return " ".join(e.text.strip() for e in root.iter() if e.tag is ElementTree.Comment)


def test_every_plot_is_a_picture_with_network_and_control(analysis_of, tmp_path):
    analysis = analysis_of("V/d0,L/d0/cb,E/s7/d1,N/d1/cb,V/cb")
    before = dict(matplotlib.rcParams)
    names = write_plots(tmp_path, analysis)
    assert dict(matplotlib.rcParams) == before
    assert names == [
        "entropy.svg", "similarity.svg", "saturation.svg", "diagonality.svg", "gates.svg"
    ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    for name in ("entropy.svg", "saturation.svg", "diagonality.svg"):
        assert "network" in comments(tmp_path / name)
        assert "random control, mean and SD" in comments(tmp_path / name)
    assert "cosine, control" in comments(tmp_path / "similarity.svg")
    assert "control, a unit each" in comments(tmp_path / "gates.svg")
    assert "trained the other way" not in comments(tmp_path / "entropy.svg")


def test_equal_figures_give_equal_files(analysis_of, tmp_path):
    analysis = analysis_of("V1L1/dia2")
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        write_plots(tmp_path / folder, analysis)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()
    assert "control, a unit each" not in comments(tmp_path / "one" / "gates.svg")


@pytest.mark.parametrize(
    ("placement", "names"),
    [
        ("N2/cb", []),
        ("N2/dia1", ["gates.svg"]),
        ("E2/s7", ["entropy.svg"]),
        ("V1E1/s7", ["entropy.svg", "diagonality.svg"]),
    ],
)
def test_what_has_no_figures_is_not_drawn(analysis_of, tmp_path, placement, names):
    assert write_plots(tmp_path, analysis_of(placement)) == names


def test_undefined_figures_leave_gaps_and_a_trained_change_is_drawn(analysis_of, tmp_path):
    analysis = analysis_of("V3/dia1")
    undefined = Figure(None, 7, None, None)
    figures = {
        name: undefined if name in (("entropy", 1), ("gates", 0, 2), ("cosine", 0, 1)) else figure
        for name, figure in analysis.figures.items()
    }
    write_plots(
        tmp_path, replace(analysis, figures=figures, trained_change={0: 0.1, 1: None, 2: 0.2})
    )
    assert "trained the other way" in comments(tmp_path / "entropy.svg")
    # Nine entries a matrix; the undefined ones, above and below the diagonal, are left out.
    texts = comments(tmp_path / "gates.svg").split()
    assert sum(text == "1.00" for text in texts) >= 9
    assert "nan" not in texts


@pytest.mark.slow
def test_deep_networks_have_short_labels(analysis_of, spec_of, images_for, tmp_path):
    spec = NetworkSpec.parse(str(spec_of("V1")).replace("depth=5", "depth=13"))
    spec = replace(spec, placement=spec_of("V1").placement.parse("V7L6/cb"))
    write_plots(tmp_path, analyse(spec, None, images_for(spec), init="timm", control_seeds=(1, 2)))
    assert "cb" not in comments(tmp_path / "entropy.svg").split()
    # Of the numbers only the scale's stand there, none in a cell.
    assert comments(tmp_path / "similarity.svg").split().count("1.00") == 1
