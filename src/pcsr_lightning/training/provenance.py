"""What a training was made of: code, libraries, device, pictures."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lightning as L
import torch

from pcsr_lightning.atomic_io import atomic_write

PICTURES = "pictures.json"
"""In a run folder: SHA-256 of every picture's file, by its name, below ``train`` and ``valid``."""
PACKAGES = (
    "pcsr_lightning", "torch", "lightning", "hydra-core", "kornia", "numpy", "pyvips",
    "pyvips-binary", "torchmetrics",
)  # fmt: skip

Digests = dict[str, dict[str, str]]


def provenance(trainer: L.Trainer) -> dict[str, Any]:
    """Commits, versions and device, for the record of a run."""
    device = trainer.strategy.root_device
    return {
        "git": commits(),
        "versions": versions(),
        "device": device_name(device),
        "processes": trainer.world_size,
        "threads": torch.get_num_threads(),
        "cwd": str(Path.cwd()),
    }


def commits() -> list[dict[str, Any]]:
    """The checkouts that the package and the working folder belong to.

    Returns:
        ``folder``, ``commit`` and ``dirty`` (tracked files were changed) of each, without
        duplicates; none where there is no git.
    """
    states = [commit_of(Path(__file__).parent), commit_of(Path.cwd())]
    return list({state["folder"]: state for state in states if state is not None}.values())


def commit_of(folder: Path) -> dict[str, Any] | None:
    """The checkout that a folder is in; ``None`` where there is none, or no git."""
    state = _git(folder, "rev-parse", "--show-toplevel", "HEAD")
    lines = [] if state is None else state.splitlines()
    if len(lines) != 2:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"folder": lines[0], "commit": lines[1], "dirty": bool(changes)}


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=False
        )
    except OSError:  # no git
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide what a training gives."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a checkout on PYTHONPATH
            continue
    return found


def device_name(device: torch.device) -> str:
    """A GPU by its name, a CPU by the instructions that PyTorch uses of it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return device.type


def digests_of(data: L.LightningDataModule) -> Digests | None:
    """SHA-256 of the pictures of a data module that can tell: see ``SRDataModule.digests``."""
    told = getattr(data, "digests", None)
    return None if told is None else told()


def data_hashes(digests: Digests | None, settings: Mapping[str, Any]) -> dict[str, str]:
    """``train`` and ``valid``: what two runs that saw the same pictures have in common.

    Of a data module that cannot tell its pictures, its settings stand for them.

    Args:
        digests: of the pictures.
        settings: of the config's group ``data``.
    """
    if digests is None:
        return {"train": _hash(dict(settings))}
    degradation = settings.get("degradation")  # other LR pictures of the same HR ones
    return {
        "train": _hash([digests["train"], *([degradation] if degradation else [])]),
        "valid": _hash(digests["valid"]),
    }


def keep_pictures(digests: Digests | None, run_dir: Path) -> None:
    """Writes ``pictures.json``, by which a replay names a picture that has changed."""
    if digests is not None:
        atomic_write(run_dir / PICTURES, (json.dumps(digests, indent=1) + "\n").encode())


def changed_pictures(before: Digests, now: Digests) -> list[str]:
    """One line for each picture that was added, removed or changed since."""
    lines = []
    for part in before:
        old, new = before[part], now.get(part, {})
        kinds = (
            ("is missing", old.keys() - new.keys()),
            ("is new", new.keys() - old.keys()),
            ("has changed", {name for name in old.keys() & new.keys() if old[name] != new[name]}),
        )
        lines += [f"{name} ({part}) {what}" for what, names in kinds for name in sorted(names)]
    return lines


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
