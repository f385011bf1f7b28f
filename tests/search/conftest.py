"""Worker processes import the fake evaluators by name, so their folder is put on the path.

So is the folder of the tiny backbones, which tests on several floors share.
"""

import sys
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent / "sharedattn")]
