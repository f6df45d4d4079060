"""Checkpoints that appear whole or not at all, whatever stops the process."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from pcsr_lightning.whole_files import remove_halves, write_whole


class WholeCheckpoints(TorchCheckpointIO):
    """Writes beside the checkpoint and renames.

    Lightning's own way writes into the system's folder for temporary files; where that is on
    another disk, moving the file copies it over the last good checkpoint, which a kill may cut.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Saves ``checkpoint`` as ``path``, a local file; its folder is made where missing."""
        del storage_options  # of remote file systems
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_halves(target)
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_whole(target, content.getvalue())
