"""``python -m pcsr_lightning.export``: see :mod:`pcsr_lightning.cli.export`."""

import sys

from pcsr_lightning.cli.export import main

if __name__ == "__main__":
    sys.exit(main())
