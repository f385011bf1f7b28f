"""Derive document keys and random seeds by hashing: equal inputs give equal results."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np


def canonical_json(document: Any) -> str:
    """JSON that is equal for equal documents: sorted keys, no spaces.

    Raises:
        ValueError: a number in it is not finite.
    """
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def document_key(document: Any) -> str:
    """sha256 of a document's canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()


def derived_seed(*entropy: int) -> int:
    """A seed for what some whole numbers name, such as (seed of the training, epoch).

    Args:
        *entropy: not negative; equal ones in equal order give equal seeds.

    Returns:
        A number below 2**32.
    """
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
