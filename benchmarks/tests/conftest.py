"""Tests of the benchmarks' modules; share the tiny networks of the main suite."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / name) for name in ("sharedattn", "search")]
