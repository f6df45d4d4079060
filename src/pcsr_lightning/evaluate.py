"""``python -m pcsr_lightning.evaluate``: see :mod:`pcsr_lightning.cli.evaluate`."""

if __name__ == "__main__":
    from pcsr_lightning.cli.startup import set_wait_policy

    set_wait_policy()
    from pcsr_lightning.cli.evaluate import main

    main()
