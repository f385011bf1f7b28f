"""Machines and clusters: what they have, and whether they are ready."""
