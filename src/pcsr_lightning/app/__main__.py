"""``python -m pcsr_lightning.app``: see :mod:`pcsr_lightning.cli.app`."""

import sys

from pcsr_lightning.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
