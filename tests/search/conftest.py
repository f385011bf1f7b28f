"""Worker processes import the fake evaluators by name, so their folder is put on the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
