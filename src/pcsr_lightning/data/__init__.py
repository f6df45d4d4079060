"""Training and validation data: picture cache, crop index, and the LightningDataModules on them."""

from pcsr_lightning.data.batches import TrainBatch
from pcsr_lightning.data.crop_index import CropIndex
from pcsr_lightning.data.datamodule import SRDataModule
from pcsr_lightning.data.degradation import (
    BicubicDegradation,
    Box,
    Degradation,
    DegradedPair,
)
from pcsr_lightning.data.div2k import DIV2KDataModule
from pcsr_lightning.data.photo_degradation import PhotoDegradation
from pcsr_lightning.data.picture_cache import PictureCache
from pcsr_lightning.data.sample_pictures import SAMPLE_FOLDER, SampleDataModule
from pcsr_lightning.data.whole_pictures import PredictPicture, ValPicture

__all__ = [
    "SAMPLE_FOLDER",
    "BicubicDegradation",
    "Box",
    "CropIndex",
    "DIV2KDataModule",
    "Degradation",
    "DegradedPair",
    "PhotoDegradation",
    "PictureCache",
    "PredictPicture",
    "SRDataModule",
    "SampleDataModule",
    "TrainBatch",
    "ValPicture",
]
