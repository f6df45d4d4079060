"""A handful of free photographs that come with the package, so that everything runs at once."""

from pathlib import Path
from typing import Any

from pcsr_lightning.data.datamodule import SRDataModule

SAMPLE_FOLDER = Path(__file__).parent / "sample"


class SampleDataModule(SRDataModule):
    """Trains on six shipped photographs and validates on two others. For trying things out:
    a model trained on it is no good.

    Args:
        options: `SRDataModule`'s arguments, without `root`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(SAMPLE_FOLDER / "train", **options)

    def val_folders(self) -> dict[str, Path]:
        return self.val_roots or {"": SAMPLE_FOLDER / "valid"}
