"""``python -m pcsr_lightning.evaluate``: see :mod:`pcsr_lightning.cli.evaluate`."""

if __name__ == "__main__":
    from pcsr_lightning.cli.startup import tune_process

    tune_process()
    from pcsr_lightning.cli.evaluate import main

    main()
