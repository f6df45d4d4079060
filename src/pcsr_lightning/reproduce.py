"""``python -m pcsr_lightning.reproduce``: see :mod:`pcsr_lightning.cli.reproduce`."""

import sys

from pcsr_lightning.cli.reproduce import main

if __name__ == "__main__":
    sys.exit(main())
