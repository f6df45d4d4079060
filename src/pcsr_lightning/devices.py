"""``python -m pcsr_lightning.devices``: see :mod:`pcsr_lightning.cli.devices`."""

import sys

from pcsr_lightning.cli.devices import main

if __name__ == "__main__":
    sys.exit(main())
