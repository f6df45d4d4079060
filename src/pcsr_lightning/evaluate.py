"""``python -m pcsr_lightning.evaluate``: see :mod:`pcsr_lightning.cli.evaluate`."""

from pcsr_lightning.cli.evaluate import main

if __name__ == "__main__":
    main()
