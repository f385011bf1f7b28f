"""The notebook in examples/ runs from top to bottom, and shows what it says."""

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, sys.path)]))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    _make_kernel(tmp_path / "jupyter" / "kernels" / "this" / "kernel.json")
    book = nbformat.read(ROOT / "examples" / "front_door.ipynb", as_version=4)
    client = NotebookClient(
        book, timeout=300, kernel_name="this", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    shown = [
        {kind: data for out in cell.outputs for kind, data in out.get("data", {}).items()}
        for cell in book.cells
        if cell.cell_type == "code"
    ]
    space, counted, first, front, frame, plot, picked = shown
    assert "1,338 of 6,039" in space["text/html"]
    assert counted["text/plain"].startswith("(1338, ")
    assert "trials 12 complete" in first["text/html"]
    assert "<th>placement</th>" in front["text/html"]
    assert "top1_standard_error" in frame["text/html"]
    assert plot["image/png"]
    assert picked["text/plain"].endswith("True)")
    # The bar of a run stands above what its cell shows.
    bars = [
        out["data"]["text/html"]
        for cell in book.cells
        for out in cell.get("outputs", ())
        if "<progress" in out.get("data", {}).get("text/html", "")
    ]
    assert ["12 of 12 trials" in bars[0], "24 of 24 trials" in bars[1]] == [True, True]
    assert (tmp_path / "study.db").is_file()


def _make_kernel(file):
    """A kernel of this interpreter, whatever kernels are installed."""
    file.parent.mkdir(parents=True)
    file.write_text(
        f'{{"argv": ["{sys.executable}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"],'
        f' "display_name": "this", "language": "python"}}'
    )
