"""Training batches by step number.

A training item is the whole batch of one step, and its crops depend only on (seed, step): resuming
at step n needs no state, and every rank of a distributed run takes its share of the same batch.
Shapes: `B` crops of a rank, `S` side of a window, `H W` HR pixels, `h w` LR pixels.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from pcsr_lightning.data.crop_plan import CropPlan, CropPlanner
from pcsr_lightning.data.cutting import cut_windows
from pcsr_lightning.data.picture_cache import PictureCache

_log = logging.getLogger(__name__)


class RawCrops(NamedTuple):
    """A step's crops on their way to the device.

    Attributes:
        window_B3SS: uint8; `None` where the device itself cuts what `plan` says.
        plan: stays on the CPU.
    """

    window_B3SS: Tensor | None
    plan: CropPlan


class TrainBatch(NamedTuple):
    """What a stage trains on.

    Attributes:
        lr_B3hw: float32; neither rounded nor clamped, so it may overshoot [0, 1] a little.
        hr_B3HW: float32 in [0, 1], or uint8.
        side_B: int64, the HR side of each crop where crops of one batch have different scales:
            crop `b` is `hr_B3HW[b, :, :side, :side]`. `None`: each crop is all of its HR pixels.
        clean_lr_B3hw: LR before noise and compression, if the degradation adds any.
    """

    lr_B3hw: Tensor
    hr_B3HW: Tensor
    side_B: Tensor | None = None
    clean_lr_B3hw: Tensor | None = None


class StepBatches(Dataset[RawCrops]):
    """Item `i` is the batch of training step `i`.

    Args:
        cache: the pictures.
        numbers: which of the cache's pictures, in the order of the planner's index.
        planner: says what each step's crops are.
        steps: length of an epoch in steps; items beyond it exist too.
        cut: cuts the windows; otherwise the device does.
    """

    def __init__(
        self,
        cache: PictureCache,
        numbers: Sequence[int],
        planner: CropPlanner,
        steps: int,
        cut: bool = True,
    ) -> None:
        self.cache, self.numbers, self.planner, self.steps = cache, list(numbers), planner, steps
        self.cut = cut

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> RawCrops:
        plan = self.planner.plan(step)
        if not self.cut:
            return RawCrops(None, plan)
        window_B3SS = cut_windows(lambda n: self.cache.pixels(self.numbers[n]), plan)
        return RawCrops(torch.from_numpy(window_B3SS), plan)


class StepSampler(DistributedSampler[int]):
    """Yields step numbers, from the trainer's present step to the end of the epoch.

    It is a `DistributedSampler` in name only, so that Lightning leaves it in place on several
    devices: all ranks get the same steps, and the dataset hands each rank its own crops.

    Args:
        dataset: the batches; its length is that of an epoch.
        done: asked at each start of iteration for the optimizer steps that are done. Lightning
            starts the first iteration after it has restored a checkpoint's step.
        accumulate: batches of an optimizer step.
    """

    def __init__(self, dataset: StepBatches, done: Callable[[], int], accumulate: int = 1) -> None:
        super().__init__(dataset, num_replicas=1, rank=0, shuffle=False)
        self._done, self._accumulate = done, accumulate

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        # An epoch's last optimizer step may be short.
        epoch, within = divmod(self._done(), max(1, -(-len(self) // self._accumulate)))
        first = epoch * len(self) + within * self._accumulate
        return iter(range(first, (epoch + 1) * len(self)))


class StepLoader(DataLoader[RawCrops]):
    """A loader whose place is the trainer's step, so a checkpoint only keeps what to compare.

    With `state_dict` Lightning knows that resuming amid an epoch is exact.
    """

    def state_dict(self) -> dict[str, int]:
        data = self.dataset
        assert isinstance(data, StepBatches)
        planner = data.planner
        return {
            "crops": len(planner.index),
            "batch_size": planner.batch_size,
            "seed": planner.seed,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        now = self.state_dict()
        if state != now:
            _log.warning(
                "Resuming on other data than before (%s, now %s): the order of crops differs.",
                state,
                now,
            )
