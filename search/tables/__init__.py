"""PlacementBench: placements of the embedded default's space, trained with several seeds."""

from sharedattn.search.tables.placement_bench import SHIPPED, Part, PlacementBench

__all__ = ["SHIPPED", "Part", "PlacementBench"]
