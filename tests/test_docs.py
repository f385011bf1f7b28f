"""The documentation: the site is built with warnings as errors, and its pages' code is run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted((DOCS / "guide").glob("add_a*.md"))
BLOCK = re.compile(r"^```(?:python|\{ \.python [^}]*\})\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INCLUDED = re.compile(r'^--8<-- "(.+)"\n', re.MULTILINE)
MACHINE = re.compile(r"/(?:tmp|work|home|root)/\w")
ELSEWHERE = re.compile(
    r"""(?:<script[^>]*\ssrc|<link[^>]*\shref|<img[^>]*\ssrc)=["']?(?:https?:)?//"""
)

built = pytest.mark.xdist_group("docs")  # by one process, so once


def blocks(page: Path) -> list[tuple[int, str]]:
    """A page's Python blocks, with what they include, and the line that each begins at."""
    text = page.read_text(encoding="utf-8")
    found = []
    for block in BLOCK.finditer(text):
        code = INCLUDED.sub(lambda said: (ROOT / said[1]).read_text(encoding="utf-8"), block[1])
        found.append((text.count("\n", 0, block.start(1)), code))
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site's folder; warnings are errors."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@built
@pytest.mark.slow
def test_the_site_has_every_page(site: Path) -> None:
    for page in DOCS.rglob("*.md"):
        place = page.relative_to(DOCS).with_suffix("")
        built = site / ("" if place.name == "index" else place) / "index.html"
        assert built.is_file(), f"{page.name} is not built"
    assert not (site / "site").exists()


@built
@pytest.mark.slow
def test_the_reference_has_the_rooms_inside_the_package(site: Path) -> None:
    page = (site / "reference" / "api" / "index.html").read_text(encoding="utf-8")
    for name in (
        "sharedattn.mechanisms.interface.Branch.cost",
        "sharedattn.placement.Placement.parse",
        "sharedattn.spaces.budget.BudgetedSpace.sample",
        "sharedattn.results.export.folder.load_network",
    ):
        assert f'id="{name}"' in page, f"{name} is not in the reference"


@built
@pytest.mark.slow
def test_the_site_reads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert not ELSEWHERE.search(page.read_text(encoding="utf-8")), page.name


def test_pages_name_no_folder_of_a_machine() -> None:
    for page in DOCS.rglob("*.md"):
        assert not MACHINE.search(page.read_text(encoding="utf-8")), page.name


def test_pages_that_readme_names_exist() -> None:
    for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text("utf-8")):
            assert (ROOT / link).exists(), f"{page} links to {link}"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sharedattn.objectives import OBJECTIVES

    monkeypatch.chdir(tmp_path)
    objectives = dict(OBJECTIVES)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    found = blocks(page)
    assert found
    try:
        for line, code in found:
            # With the page's own line numbers in tracebacks.
            exec(compile("\n" * line + code, str(page), "exec"), namespace)
    finally:
        OBJECTIVES.clear()
        OBJECTIVES.update(objectives)
