"""Export a network as a folder that anyone can rebuild and verify."""
