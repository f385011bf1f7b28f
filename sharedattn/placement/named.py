"""Networks like LaViT's models, as far as its printed figures determine them.

LaViT (CVPR 2024, arXiv:2406.00427) prints params and MACs of three models; no available source
gives their shapes. So none of these has the paper's name for its own:

- `lavit_like_b` is PVT-Medium with vanilla layers in stages 1 and 2, and one before less layers in
  stages 3 and 4. By the paper's convention (maps are free) it has 39.67 M params and 6.15 G MACs
  (6.13 G without norms); printed are 39.6 M and 6.1 G. Eleven placements of vanilla layers before
  less ones on published pyramids give the same figures, all on PVT-Medium and with the same
  stages 3 and 4; this is the one whose stages 1 and 2 are all vanilla.
- `lavit_like_t` and `lavit_like_s` are not published pyramids: none gives LaViT-T's 10.9 M and
  1.6 G, or LaViT-S's 22.4 M and 3.3 G, with any number of less layers. They are the nearest on a
  grid of depths and widths within the published ranges, placed like `lavit_like_b`, maps free:
  10.90 M and 1.597 G, 22.42 M and 3.296 G. About two hundred others on the grid print the same
  figures, and other placements come nearer still, so only being nearest distinguishes them;
  `benchmarks/lavit_search.py` finds them.

All three lack the paper's attention residual and diagonality term: the wiring of the former is our
interpretation, and the latter belongs to the recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

LAVIT_LIKE: Mapping[str, str] = MappingProxyType(
    {
        "lavit_like_t": (
            "pvt_v2(depths=3-7-10-3,embed_dims=32-64-160-384,num_heads=1-2-5-8): "
            "V3 | V7 | V1L9 | V1L2"
        ),
        "lavit_like_s": (
            "pvt_v2(depths=3-4-10-3,embed_dims=48-64-320-384,num_heads=1-2-5-8): "
            "V3 | V4 | V1L9 | V1L2"
        ),
        "lavit_like_b": "pvt_medium: V3 | V4 | V1L17 | V1L2",
    }
)
"""Texts of networks by name; `NetworkSpec.parse` reads either."""
