"""Mechanisms from outside, one a file."""
