"""A finished model on the pictures that its training was validated on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig

from pcsr_lightning.errors import DataError
from pcsr_lightning.evaluation import Benchmark, Pair, Skipped, scale_pair, shaved_border
from pcsr_lightning.evaluation.benchmark import describe_setup, measure_pair
from pcsr_lightning.evaluation.pairs import Protocol, cut_pair
from pcsr_lightning.evaluation.patches import Layout
from pcsr_lightning.evaluation.report import METRICS, metrics, write_json
from pcsr_lightning.inference import RoutingConfig
from pcsr_lightning.networks import PatchRouted
from pcsr_lightning.settings.instantiation import in_plain_values, instantiate
from pcsr_lightning.training.modules.batches import ValPicture
from pcsr_lightning.weights import load


def measure_model(cfg: DictConfig, run_dir: Path) -> dict[str, Any]:
    """Measures ``run_dir``'s model at ``k = 0`` on full validation images, at ``val_scale``.

    Models that route patches are measured patch by patch, as ``protocol=overlapped`` has it.

    Args:
        cfg: of the training; says what data there is, and which device.
        run_dir: has the model; gets ``metrics.json``.

    Returns:
        What the file holds: as :func:`pcsr_lightning.evaluation.metrics` says, and ``device``,
        ``threads`` and ``seed``.

    Raises:
        DataError: no validation picture is large enough to be compared.
    """
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    device = device_of(in_plain_values(cfg.trainer, "trainer"))
    model = load(run_dir, device, patch_routed=True)
    data = in_plain_values(cfg.data, "data")
    highest = data["scale"][-1] if isinstance(data["scale"], list) else data["scale"]
    scale = scale_pair(float(highest if data["val_scale"] is None else data["val_scale"]))
    routing = RoutingConfig(k=0.0)
    folder = data["val_root"] or data.get("root")
    if isinstance(folder, Mapping):  # several validation sets: the first is what counts
        folder = next(iter(folder.values()))
    patches = isinstance(model, PatchRouted)
    protocol = Protocol.OVERLAPPED if patches else Protocol.FULL_IMAGE
    layout, routing = Layout.of(protocol), routing.replace(refine=routing.refines(scale))
    setup = describe_setup(model, folder or "", scale, routing, protocol, layout)
    measured, skipped = [], []
    for name, whole in validation_pairs(instantiate(cfg.data, "data"), device):
        if min(whole.lr_13hw.shape[-2:]) < protocol.least:
            skipped.append(Skipped(name, f"protocol '{protocol}' needs larger pictures"))
            continue
        pair = cut_pair(whole, scale, protocol)
        if min(pair.hr_13HW.shape[-2:]) <= 2 * shaved_border(scale):
            skipped.append(Skipped(name, "nothing is left once its border is shaved off"))
            continue
        measured.append(replace(measure_pair(model, pair, setup, layout)[0], name=name))
    if not measured:
        raise DataError("none of the validation pictures is large enough to be compared")
    metadata = {
        "model": str(run_dir),
        "data_root": folder,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "seed": cfg.seed,
    }
    content = metrics(Benchmark(tuple(measured), tuple(skipped)), metadata)
    write_json(content, run_dir / METRICS)
    return content


def validation_pairs(
    data: L.LightningDataModule, device: torch.device
) -> Iterator[tuple[str, Pair]]:
    """Name and pair of every validation picture, as a training's validation gets them.

    Of several validation sets, the first.
    """
    data.prepare_data()
    data.setup("validate")
    loaders = data.val_dataloader()
    for raw in next(iter(loaders.values())) if isinstance(loaders, Mapping) else loaders:
        moved = data.transfer_batch_to_device(raw, device, 0)
        picture: ValPicture = data.on_after_batch_transfer(moved, 0)
        yield picture.name, Pair(picture.lr, picture.hr)


def device_of(trainer: dict[str, Any]) -> torch.device:
    """The first device that a trainer of these settings works on; the CPU where it is no GPU."""
    accelerator, devices = trainer.get("accelerator", "auto"), trainer.get("devices")
    if accelerator not in ("auto", "gpu", "cuda") or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", devices[0] if isinstance(devices, list) and devices else 0)
