"""Images drawn by networks that denoise, and how near they are to real ones."""
