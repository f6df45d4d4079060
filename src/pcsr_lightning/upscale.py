"""``python -m pcsr_lightning.upscale``: see :mod:`pcsr_lightning.cli.upscale`."""

import sys

from pcsr_lightning.cli.upscale import main

if __name__ == "__main__":
    sys.exit(main())
