"""The records that are stored, as frozen values."""
