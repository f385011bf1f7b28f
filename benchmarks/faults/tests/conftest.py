"""Test suite of the fault campaign; shares fakes and small studies with the main suite."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT / "benchmarks" / "faults"), str(ROOT / "tests" / "search")]
