"""What the site's builder calls: it shows mkdocstrings the package as an installation has it.

The rooms lie beside `sharedattn/` in a checkout and inside it in an installation; mkdocstrings
reads folders as they lie and imports nothing. So it gets a tree of links in a temporary folder.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority

ROOT = Path(__file__).parents[2]
ROOMS = ("search", "results", "spaces")

_trees: list[tempfile.TemporaryDirectory[str]] = []


@event_priority(100)
def on_config(config: Any) -> Any:
    """Set where mkdocstrings finds `sharedattn`, before it starts."""
    tree = tempfile.TemporaryDirectory(prefix="sharedattn-docs-")
    _trees.append(tree)
    package = Path(tree.name) / "sharedattn"
    package.mkdir()
    for path in (ROOT / "sharedattn").iterdir():
        (package / path.name).symlink_to(path)
    for room in ROOMS:
        (package / room).symlink_to(ROOT / room)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [tree.name]
    return config


def on_post_build(config: Any) -> None:
    """Remove the trees."""
    del config
    while _trees:
        _trees.pop().cleanup()
