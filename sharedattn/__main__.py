"""Makes `python -m sharedattn` the command `sharedattn`."""

import sys

from sharedattn.search.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
