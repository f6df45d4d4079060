"""``python -m pcsr_lightning.models``: see :mod:`pcsr_lightning.cli.models`."""

import sys

from pcsr_lightning.cli.models import main

if __name__ == "__main__":
    sys.exit(main())
