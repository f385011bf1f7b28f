"""Heads on feature pyramids: detectors and segmenters."""
