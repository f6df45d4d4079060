"""``python -m pcsr_lightning``: the command ``pcsr``, see :mod:`pcsr_lightning.cli.main`."""

import sys

from pcsr_lightning.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
