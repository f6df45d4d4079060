"""``python -m pcsr_lightning.convert``: see :mod:`pcsr_lightning.cli.convert`."""

import sys

from pcsr_lightning.cli.convert import main

if __name__ == "__main__":
    sys.exit(main())
