"""What the commands beside `search` do."""
