"""``python -m pcsr_lightning.upscale``: see :mod:`pcsr_lightning.cli.upscale`."""

import sys
from types import ModuleType
from typing import cast

if __name__ == "__main__":
    from pcsr_lightning.cli.upscale import main

    sys.exit(main())
elif __name__ == "pcsr_lightning.upscale":
    # Imported, not run: the name belongs to the function `pcsr_lightning.upscale(model, image)`.
    from pcsr_lightning.inference import upscale

    sys.modules[__name__] = cast(ModuleType, upscale)
