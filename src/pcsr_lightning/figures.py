"""``python -m pcsr_lightning.figures``: see :mod:`pcsr_lightning.cli.figures`."""

import sys

from pcsr_lightning.cli.figures import main

if __name__ == "__main__":
    sys.exit(main())
