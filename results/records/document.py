"""Documents: what is written to JSON."""

from typing import Any

Document = dict[str, Any]
