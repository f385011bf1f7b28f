"""Files beside the database: weights, checkpoints, blobs."""
