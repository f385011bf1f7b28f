"""The model of accuracy that `--searcher model` proposes by and `sharedattn explain` reads."""
