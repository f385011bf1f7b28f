"""The suite of the fault campaign; it shares the main suite's fakes and small studies."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT / "benchmarks" / "faults"), str(ROOT / "tests" / "search")]
