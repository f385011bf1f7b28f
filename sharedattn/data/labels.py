"""What the labels of images mean, besides the class of a whole image.

Shape letters: B batch, M most boxes of an image in a batch, Y x X pixels.

A batch of masks is (B, Y, X), uint8: the class of each pixel, or `IGNORED`. A batch of boxes is
(B, M, 6), float32: x0, y0, x1, y1 in pixels of the image from its top left corner, the class, and
whether the box holds a crowd (1) or one object (0); rows without a box have the class `NO_BOX`.
"""

from __future__ import annotations

IGNORED = 255
"""Label of the pixels of a mask that count nowhere: cross entropy and metrics leave them out."""

NO_BOX = -1.0
"""Class of the rows that fill up the boxes of an image to those of its batch."""

BOX_COLUMNS = 6
CLASS_COLUMN, CROWD_COLUMN = 4, 5
