"""Machines and clusters: their resources and their readiness."""
