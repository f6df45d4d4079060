"""``python -m pcsr_lightning.train``: see :mod:`pcsr_lightning.cli.train`."""

from pcsr_lightning.cli.train import main

if __name__ == "__main__":
    main()
