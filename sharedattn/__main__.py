"""`python -m sharedattn` is the command `sharedattn`."""

import sys

from search.cli import main

if __name__ == "__main__":
    sys.exit(main())
