"""The work of the commands other than `search`."""
