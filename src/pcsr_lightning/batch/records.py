"""How results were made: a hidden file beside them, one line of JSON for each.

A line holds a result's name, size and time, and the settings that it was made with. A result that
was changed or replaced since does not fit its line any more and counts as one without a record.
Lines are only ever added, each in one piece, so any number of processes may write: the last one
about a name counts. Results without a record, older ones say, are left as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from pcsr_lightning.atomic_io import link_target
from pcsr_lightning.batch.one_picture import UpscaleOptions
from pcsr_lightning.batch.outputs import Job, Version, version
from pcsr_lightning.networks import PCSR, Original

RECORD_NAME = ".pcsr_upscale.jsonl"
_SLACK_NS = 2_000_000_000
"""Copies keep a file's time to within two seconds, on the coarsest file systems."""

Settings = Mapping[str, str]
"""What a result depends on, apart from its input, in words."""


def settings_of(model: PCSR | Original, name: str, options: UpscaleOptions) -> Settings:
    """All that decides what a result looks like; memory, threads and device do not.

    Args:
        model: its weights count, so that a retrained model of the same name is another.
        name: of the model, or its file's path.
        options: how pictures are upscaled.
    """
    digest = hashlib.sha256(json.dumps(model.config(), sort_keys=True).encode())
    for _, value in sorted(model.state_dict().items()):
        digest.update(value.cpu().contiguous().numpy().tobytes())
    routing, refine = options.routing, {None: "by the scale", True: "on", False: "off"}
    exactly = " exactly" if options.size is not None and options.size.exact else ""
    return {
        "size": f"x{options.scale:g}" if options.size is None else f"{options.size}{exactly}",
        "model": Path(name).name,
        "weights": digest.hexdigest()[:16],
        "routing": routing.description,
        "cost": routing.cost.value,
        "refinement": refine[routing.refine],
        "precision": options.precision,
        "quality": "the usual" if options.quality is None else str(options.quality),
    }


def settings_by_model(
    networks: Mapping[str, PCSR | Original], options: UpscaleOptions
) -> dict[str, Settings]:
    """Those of the results of each model; of several, each says which the choice was between."""
    found = {name: settings_of(model, name, options) for name, model in networks.items()}
    if len(found) == 1:
        return found
    choice = " or ".join(f"{Path(name).name} {found[name]['weights']}" for name in found)
    return {name: {**settings, "choice": choice} for name, settings in found.items()}


def compared(jobs: Sequence[Job], settings: Settings) -> list[Job]:
    """Jobs that know whether their results, where they exist, were made with these settings."""
    read = cache(_read)
    return [_compared(job, settings, read(link_target(job.target).parent)) for job in jobs]


def write_record(target: Path, settings: Settings) -> None:
    """Adds a line about a result that was just made.

    Raises:
        OSError: it cannot be written.
    """
    target = link_target(target)
    there = version(target)
    if there is None:
        return
    _, time, size = there
    line = json.dumps({"name": target.name, "size": size, "time": time, "settings": dict(settings)})
    record = os.open(target.with_name(RECORD_NAME), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        # The line break ahead ends a line that a full disk has cut off.
        os.write(record, f"\n{line}\n".encode())
    finally:
        os.close(record)


def _compared(job: Job, settings: Settings, lines: Mapping[str, tuple[Version, Settings]]) -> Job:
    if job.before is None:
        return job
    if job.class_map is not None and not job.class_map.exists():
        return replace(job, outdated="its class map is missing")
    made, before = lines.get(link_target(job.target).name, ((0, 0, -1), {})), job.before
    (_, time, size), then = made
    if size != before[2] or abs(time - before[1]) > _SLACK_NS:
        return replace(job, unrecorded=True)
    return replace(job, outdated=_difference(settings, then))


def _difference(now: Settings, then: Settings) -> str | None:
    """In words; the same weights under another name are the same model.

    Where each picture chooses, what it would choose is known only by reading it: the models that
    it had to choose from are compared.
    """
    known = "weights" if "choice" in now else "choice"
    differ = [key for key in now if key not in ("model", known) and then.get(key) != now[key]]
    words = []
    for key in differ:
        shown = "model" if key == "weights" else key
        new, old = now[shown], then.get(shown, "unknown")
        if key == "choice":
            shown, new, old = "model", "by the picture", then.get("model", "unknown")
        words.append(
            f"{shown} {new} instead of {old}" if new != old else f"another {shown} called {new}"
        )
    return ", ".join(words) or None


def _read(folder: Path) -> dict[str, tuple[Version, Settings]]:
    """The last line about each result in a folder."""
    found: dict[str, tuple[Version, Settings]] = {}
    try:
        lines = (folder / RECORD_NAME).read_text("utf-8", "replace").splitlines()
    except OSError:  # none, or not ours to read: the results count as those without a record
        return found
    for line in lines:
        try:
            entry = json.loads(line)
            made = (0, int(entry["time"]), int(entry["size"]))
            found[str(entry["name"])] = made, dict(entry["settings"])
        except (ValueError, LookupError, TypeError):  # cut off, or not ours
            continue
    return found
