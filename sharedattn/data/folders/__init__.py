"""Folders of images: listing, decoding, and cutting them into splits."""
