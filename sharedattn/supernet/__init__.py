"""Supernets: one network trained for every placement of a space."""
