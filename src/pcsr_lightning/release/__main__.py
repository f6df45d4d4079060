"""``python -m pcsr_lightning.release``: see :mod:`pcsr_lightning.cli.release`."""

import sys

from pcsr_lightning.cli.release import main

if __name__ == "__main__":
    sys.exit(main())
