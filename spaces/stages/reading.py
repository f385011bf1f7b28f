"""Reading one stage of a space's document."""

from __future__ import annotations

from typing import Any

from sharedattn.spaces.stages.counted_stage import CountedStage
from sharedattn.spaces.stages.listed_stage import ListedStage
from sharedattn.yaml_text import DocumentError, DocumentPath

Stage = CountedStage | ListedStage


def read_stage(value: Any, path: DocumentPath) -> Stage:
    """Read one entry of a space's `stages`, which has either `counts` or `layers`."""
    forms = [key for key in ("counts", "layers") if isinstance(value, dict) and key in value]
    if len(forms) != 1:
        raise DocumentError(
            path, f"expected a mapping with either counts or layers, but got {value!r}"
        )
    stage = CountedStage if forms == ["counts"] else ListedStage
    return stage.from_document(value, path)
