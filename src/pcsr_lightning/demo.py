"""``python -m pcsr_lightning.demo``: see :mod:`pcsr_lightning.cli.demo`."""

import sys

from pcsr_lightning.cli.demo import main

if __name__ == "__main__":
    sys.exit(main())
