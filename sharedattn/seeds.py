"""Seeds made of seeds: one for each thing that is drawn, none of them near another."""

from __future__ import annotations

import numpy as np


def derived_seed(*entropy: int) -> int:
    """A seed for what some whole numbers name, such as (seed of the training, epoch).

    Args:
        *entropy: not negative; equal ones in equal order give equal seeds.

    Returns:
        A number below 2**32.
    """
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
