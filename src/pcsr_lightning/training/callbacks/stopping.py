"""Ctrl-C and SIGTERM end a training between two steps, with a checkpoint to resume from."""

from __future__ import annotations

import math
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from pcsr_lightning.atomic_io import remove_all_stale_temporaries
from pcsr_lightning.errors import INTERRUPTED, TERMINATED
from pcsr_lightning.training.callbacks.checkpoints import with_validation_ahead
from pcsr_lightning.training.callbacks.last_validation import at_last_step
from pcsr_lightning.weights import LAST

_REQUEUE = (signal.SIGUSR1, signal.SIGUSR2)
# By rising weight: where processes got different ones, the last of them counts.
_KNOWN = (signal.SIGINT, signal.SIGTERM, *_REQUEUE)
_ECHO_S = 2.0  # torchrun and job schedulers hand on a signal that the process got itself already

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class Stopped(SystemExit):
    """The training has saved its checkpoint on a signal and ends, with the signal's exit code."""


class StopBetweenSteps(L.Callback):
    """The first Ctrl-C or SIGTERM finishes the step, saves ``checkpoint`` and stops.

    Lightning's own ways, ``ModelCheckpoint(save_on_exception=True)`` and the requeueing of its
    ``SLURMEnvironment``, save wherever the signal happens to come, so that a checkpoint can hold
    half of an optimizer's update, and processes can save different steps. The same signal
    again, more than two seconds later, is abrupt. Several processes agree on the step after which
    they stop, whichever of them got the signal; one of them writes. In one process a validation
    is left between two pictures, and repeated on resuming.

    In a SLURM job the signal that comes before the time limit (SIGUSR1, or the one submitit sets)
    does the same, and puts the job back into the queue; see :func:`checkpoint_of_restart`.

    Ends with ``KeyboardInterrupt`` on Ctrl-C, else with :class:`Stopped`: 143 on SIGTERM and on
    requeueing.

    Args:
        checkpoint: the file to save; what killed processes left half-written beside it and in the
            folder above is removed before training.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self._asked = 0  # 1 + place in _KNOWN
        self._first: dict[int, float] = {}  # when each signal came first
        self._before: dict[int, Handler] = {}
        self._several = False
        self._step_done = True  # no gradients are being accumulated
        self._validation_ahead = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if trainer.is_global_zero:
            for folder in (self.checkpoint.parent, self.checkpoint.parent.parent):
                remove_all_stale_temporaries(folder)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Spawned processes are left alone: their parent would not wait for their checkpoint.
        self._several = trainer.world_size > 1
        if self._several and not isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher):
            self._several = False
            return
        if threading.current_thread() is not threading.main_thread():
            return
        numbers = [signal.SIGINT, signal.SIGTERM]
        if "SLURM_JOB_ID" in os.environ:  # a handler there means that the job is to be requeued
            numbers += [number for number in _REQUEUE if callable(signal.getsignal(number))]
        for number in numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._ask)
        if trainer.received_sigterm:  # while the trainer's own handler was in place
            self._ask(signal.SIGTERM, None)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Tensor | object,
        batch: object,
        batch_idx: int,
    ) -> None:
        self._step_done = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        self._validation_ahead = validates_now(trainer, batch_idx)
        if self._step_done:
            self._stop_if_asked(trainer)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Tensor | object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        # Several processes may have different numbers of pictures, so they cannot agree here.
        if trainer.state.fn == "fit" and self._step_done and not self._several:
            self._stop_if_asked(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validation_ahead = False

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._validation_ahead:
            counted = trainer.validating or at_last_step(trainer)
            with_validation_ahead(checkpoint, counted)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._put_back()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._put_back()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        repeated = now - self._first.setdefault(number, now) > _ECHO_S
        bypassed = number in _REQUEUE or (number == signal.SIGTERM and _under_submitit())
        if repeated and not bypassed:
            abrupt = signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler
            signal.signal(number, abrupt)
            signal.raise_signal(number)
        self._asked = max(self._asked, 1 + _KNOWN.index(signal.Signals(number)))

    def _stop_if_asked(self, trainer: L.Trainer) -> None:
        asked = self._asked
        if self._several:  # a signal may have come to one of them only, or amid different steps
            flag = torch.tensor(asked, device=trainer.strategy.root_device)
            asked = int(trainer.strategy.reduce(flag, reduce_op="max"))
        if not asked:
            return
        number = _KNOWN[asked - 1]
        trainer.save_checkpoint(self.checkpoint, weights_only=False)
        if number == signal.SIGTERM and _under_submitit():
            self._asked = 0  # submitit goes on, too: it requeues at its own signal, which follows
            return
        if number in _REQUEUE:
            self._requeue(trainer, number)
        resume = shlex.quote(f"ckpt_path={self.checkpoint}")
        rank_zero_info(f"stopped at step {trainer.global_step}; to resume, add {resume}")
        if number == signal.SIGINT and trainer.is_global_zero:
            raise KeyboardInterrupt
        if _started_by_lightning(trainer) and trainer.local_rank > 0:
            raise Stopped(0)  # else the first process would be killed on its way out
        raise Stopped(INTERRUPTED if number == signal.SIGINT else TERMINATED)

    def _requeue(self, trainer: L.Trainer, number: int) -> None:
        """Puts the job back into the queue."""
        before = self._before.get(number)
        try:
            if _under_submitit():
                if callable(before):
                    before(number, None)
            elif trainer.is_global_zero:
                requeue_job()
        except SystemExit:  # submitit's way out; the others must not be left waiting
            pass
        finally:
            trainer.strategy.barrier("requeue")

    def _put_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def validates_now(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether Lightning validates after this batch of an epoch."""
    epochs, every = trainer.check_val_every_n_epoch, trainer.val_check_batch or math.inf
    if epochs is None:
        return (trainer.fit_loop.total_batch_idx + 1) % every == 0
    return (trainer.current_epoch + 1) % epochs == 0 and (batch_idx + 1) % every == 0


def checkpoint_of_restart(run_dir: Path) -> str | None:
    """The run's own last checkpoint, if SLURM or torchrun has started this process again.

    Their command is the same as the first time, so it cannot name the checkpoint.

    Args:
        run_dir: the run folder, which is the same as before the restart.
    """
    counts = [os.environ.get(f"{name}_RESTART_COUNT", "") for name in ("SLURM", "TORCHELASTIC")]
    last = run_dir / LAST
    again = any(count.isdecimal() and int(count) > 0 for count in counts)
    return str(last) if again and last.is_file() else None


def requeue_job() -> None:
    """Asks SLURM to put this job back into the queue; says so if it does not."""
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        rank_zero_warn(f"job {job} could not be put back into the queue: {error}")
    else:
        rank_zero_info(f"job {job} is back in the queue")


def _under_submitit() -> bool:
    return "SUBMITIT_EXECUTOR" in os.environ


def _started_by_lightning(trainer: L.Trainer) -> bool:
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return isinstance(environment, LightningEnvironment)
