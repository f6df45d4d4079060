"""``python -m pcsr_lightning.replay``: see :mod:`pcsr_lightning.cli.replay`."""

import sys

from pcsr_lightning.cli.replay import main

if __name__ == "__main__":
    sys.exit(main())
