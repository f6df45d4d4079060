"""A trained model whose pictures a first stage learns in place of the ground truth."""

from __future__ import annotations

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks import PCSR, CellQueries
from pcsr_lightning.weights import find_model, load_model_file


class Teacher:
    """A larger model; what it makes of an LR crop replaces the ground truth, or a share of it.

    Its picture lacks what no network could know from the LR crop, so a small student meets less
    noise. It is no part of the student: not in its checkpoints, without gradient, never trained.

    Args:
        network: its heaviest upsampler restores all pixels; frozen and set to evaluation for good.
        share: of its picture in what is learned, in (0, 1]; the ground truth has the rest.

    Raises:
        ConfigError: ``share`` is out of range.
    """

    def __init__(self, network: PCSR, share: float = 1.0) -> None:
        if not 0 < share <= 1:
            raise ConfigError(
                f"stage.teacher_share={share}: must be a share in (0, 1]; for the ground truth "
                "alone leave stage.teacher null"
            )
        alone = PCSR(network.backbone, [network.upsampler(0)], None, network.mean.tolist())
        self.network = alone.eval().requires_grad_(False)
        self.share = share

    @classmethod
    def load(cls, name: str, share: float = 1.0) -> Teacher:
        """A released model by name, or a model file.

        Raises:
            ConfigError: it is no PCSR model, or ``share`` is out of range.
            ModelFileError: there is no such model, or its file cannot be read.
        """
        model, _ = load_model_file(find_model(name))
        if not isinstance(model, PCSR):
            raise ConfigError(
                f"stage.teacher={name} is an original model; a teacher must be a PCSR model"
            )
        return cls(model, share)

    @torch.no_grad()
    def target(
        self,
        lr_B3hw: Tensor,
        hr_B3Q: Tensor,
        size: tuple[int, int],
        queries: Tensor | CellQueries | None = None,
    ) -> Tensor:
        """The distillation target at the query pixels, ``(B, 3, Q)``.

        Args:
            lr_B3hw: crops in [0, 1].
            hr_B3Q: the ground truth at the queries.
            size: ``(H, W)`` of the whole HR crops.
            queries: as :meth:`PCSR.forward` takes them.
        """
        self.network.to(lr_B3hw.device)  # nothing to do after the first step
        seen_B3Q = self.network(lr_B3hw, size, queries).mixed()
        return torch.lerp(hr_B3Q, seen_B3Q.to(hr_B3Q.dtype), self.share)
