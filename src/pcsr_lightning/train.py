"""``python -m pcsr_lightning.train``: see :mod:`pcsr_lightning.cli.train`."""

if __name__ == "__main__":
    from pcsr_lightning.cli.startup import tune_process

    tune_process()
    from pcsr_lightning.cli.train import main

    main()
