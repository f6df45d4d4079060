"""A training step that a GPU does as a whole, without waiting for the CPU in between.

Losses, gradients, clipping and the optimizer's update run as one function of the batch, which
:mod:`~pcsr_lightning.networks.cuda_graph` records once and replays. Nothing in it depends on
numbers on the CPU: learning rates are tensors, and a loss that is not finite is noted on the
device and found later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import BaseFinetuning, GradientAccumulationScheduler
from torch import Tensor
from torch.optim import Optimizer

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks.cuda_graph import GraphedFunction

Losses = Callable[[Any, Any], tuple[Tensor, dict[str, Tensor]]]

BETWEEN = (
    "on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step",
    "optimizer_zero_grad", "training_step", "backward", "optimizer_step",
)  # fmt: skip
"""Hooks amid a step."""


class CapturedStep:
    """Trains on a batch; on a CUDA device as a graph.

    Args:
        losses: of a batch and its queries: the loss, and its parts by name.
        optimizer: updates the parameters. Its groups keep plain rates, which schedules and
            checkpoints see; during its step they are tensors.
        clip: clips the gradients.
        device: of batches and parameters.
        step: the first step's number.
    """

    def __init__(
        self,
        losses: Losses,
        optimizer: Optimizer,
        clip: Callable[[], None],
        device: torch.device,
        step: int = 0,
    ) -> None:
        self.losses, self.optimizer, self.clip, self.device = losses, optimizer, clip, device
        self.rates = [torch.zeros((), device=device) for _ in optimizer.param_groups]
        self.step_number = torch.tensor(float(step), dtype=torch.float64, device=device)
        self.not_finite_2 = torch.tensor([-1.0, 0.0], dtype=torch.float64, device=device)
        for p, state in optimizer.state.items():  # a checkpoint's numbers of steps are on the CPU
            state.update({k: v.to(p.device) for k, v in state.items() if isinstance(v, Tensor)})
        self.graph = GraphedFunction(self._train, device) if device.type == "cuda" else None

    def __call__(self, batch: Any, queries: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """One step: the loss and its parts, as they were before it."""
        groups = self.optimizer.param_groups
        for rate, group in zip(self.rates, groups, strict=True):
            rate.fill_(group["lr"])
        if self.graph is None:
            return self._train(batch, queries)
        found: tuple[Tensor, dict[str, Tensor]] = self.graph((batch, queries), constants(groups))
        return found

    def check(self) -> None:
        """Waits for the device.

        Raises:
            ConfigError: the loss of a step since the beginning was not finite.
        """
        step, loss = self.not_finite_2.tolist()
        if step >= 0:
            raise not_finite(loss, int(step))

    def _train(self, batch: Any, queries: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, parts = self.losses(batch, queries)
        # As Lightning does it: autocast is for the forward pass alone.
        with torch.autocast(self.device.type, enabled=False):
            # Without old gradients a graph writes new ones, instead of adding to them.
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.clip()
            with self._rates_on_device():
                self.optimizer.step()
        with torch.no_grad():
            self._note(loss)
        return loss.detach(), {name: part.detach() for name, part in parts.items()}

    def _note(self, loss: Tensor) -> None:
        """Keeps the first loss that is not finite, and its step."""
        first = (self.not_finite_2[0] < 0) & ~torch.isfinite(loss)
        now_2 = torch.stack([self.step_number, loss.double()])
        self.not_finite_2.copy_(torch.where(first, now_2, self.not_finite_2))
        self.step_number += 1

    @contextmanager
    def _rates_on_device(self) -> Iterator[None]:
        groups = self.optimizer.param_groups
        kept = [(group["lr"], group["capturable"]) for group in groups]
        try:
            for group, rate in zip(groups, self.rates, strict=True):
                # On the CPU, which has nothing to capture, torch refuses it.
                group |= {"lr": rate, "capturable": self.device.type == "cuda"}
            yield
        finally:
            for group, (rate, capturable) in zip(groups, kept, strict=True):
                group |= {"lr": rate, "capturable": capturable}


def constants(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a graph fixes of an optimizer's groups: all their numbers but the rates."""
    return [
        {key: value for key, value in group.items() if key not in ("params", "lr")}
        | {"params": len(group["params"])}
        for group in groups
    ]


def obstacle(trainer: L.Trainer, stage: L.LightningModule, plain: type) -> str | None:
    """Why a trainer's steps cannot be captured; ``None`` if nothing stands against it.

    Args:
        trainer: about to train ``stage``.
        stage: the module.
        plain: the class whose own hooks amid a step are known.
    """
    [optimizer, *_] = trainer.optimizers
    changing = [
        type(callback).__name__
        for callback in trainer.callbacks  # type: ignore[attr-defined]
        if isinstance(callback, GradientAccumulationScheduler | BaseFinetuning)
    ]
    owners: list[tuple[object, type]] = [(stage, plain)]
    owners += [(callback, L.Callback) for callback in trainer.callbacks]  # type: ignore[attr-defined]
    hooks = [
        f"{type(owner).__name__}.{name}"
        for owner, known in owners
        for name in BETWEEN
        if getattr(type(owner), name, None) is not getattr(known, name, None)
    ]
    if trainer.world_size > 1:
        return f"it has {trainer.world_size} processes"
    if trainer.strategy.root_device.type not in ("cpu", "cuda"):
        return f"it runs on {trainer.strategy.root_device}"
    if trainer.accumulate_grad_batches != 1:
        return f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}"
    if changing:
        return f"{changing[0]} changes what a step does"
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        return f"trainer.precision={trainer.precision} scales the loss; use bf16-mixed"
    if "capturable" not in optimizer.defaults:
        return f"{type(optimizer).__name__} has no argument capturable"
    return f"{hooks[0]} looks into the step" if hooks else None


def not_finite(loss: float, step: int) -> ConfigError:
    """The error of a loss that became NaN or infinite."""
    return ConfigError(
        f"the training loss became {loss} at step {step}: "
        "lower optimizer.lr, or look for damaged pictures in the data"
    )
