"""Search where a vision transformer needs full attention, and what may stand in its place."""

from pathlib import Path

# In a checkout `search`, `results` and `spaces` lie beside this folder; an installation has them
# inside it. Python that starts in the checkout finds this folder first, whatever is installed.
if not (Path(__path__[0]) / "search").is_dir():
    __path__.append(str(Path(__path__[0]).parent))
