"""How an upscaling is carried out: precision, and how much of the picture is in work at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TypeVar

import torch
from torch import nn

from pcsr_lightning.arithmetic import float32_products
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.inference.checks import is_number

T = TypeVar("T")


class Precision(StrEnum):
    """The arithmetic of the network; pictures stay float32."""

    FP32 = "fp32"
    TF32 = "tf32"
    BF16 = "bf16"


@dataclass(frozen=True)
class Execution:
    """Nothing here changes the result by more than rounding.

    Attributes:
        precision: ``"fp32"``, IEEE float32 whatever the process has set; ``"tf32"``, on NVIDIA GPUs
            from Ampere on: factors of products are rounded to ten bits; or ``"bf16"``, where the
            processor or GPU multiplies bfloat16: about twice as fast, for a few thousandths of a
            dB.
        max_memory: bytes that may be in work at a time, beside the picture, the result and the
            model; ``None`` chooses for speed.
        tile_rows: LR rows in work at a time, instead of a choice by ``max_memory``.
        fused: whether the network runs as planned for GPUs: all pixel-level MLPs in one Triton
            kernel, and the backbone on large tiles; ``None`` for where there is CUDA. ``True`` on a
            CPU is for tests of that code; the kernel then needs ``TRITON_INTERPRET=1``.
        planar: on a CPU, whether narrow convolutions and the pixel-level MLPs run in kernels that
            numba compiles, where it is installed and there are few enough threads; ``None`` for
            where that saves more time than loading numba takes: large pictures, and networks with
            narrow convolutions.

    Raises:
        ConfigError: a value that is none of these.
    """

    precision: Precision | str = Precision.FP32
    max_memory: int | None = None
    tile_rows: int | None = None
    fused: bool | None = None
    planar: bool | None = None

    def __post_init__(self) -> None:
        try:
            precision = Precision(self.precision)
        except ValueError:
            *names, last = (p.value for p in Precision)
            known = f"{', '.join(names)} or {last}"
            raise ConfigError(f"the precision must be {known}, not {self.precision!r}") from None
        object.__setattr__(self, "precision", precision)
        for name in ("max_memory", "tile_rows"):
            value = getattr(self, name)
            if value is None:
                continue
            if not is_number(value) or value != int(value) or value < 1:
                raise ConfigError(f"{name} must be a whole number of at least 1, not {value!r}")
            object.__setattr__(self, name, int(value))
        if self.max_memory is not None and self.tile_rows is not None:
            raise ConfigError("max_memory and tile_rows exclude each other: give one of them")

    def is_fused(self, device: torch.device) -> bool:
        """:attr:`fused` on this device."""
        return device.type == "cuda" if self.fused is None else self.fused

    def dtype(self, model: nn.Module) -> torch.dtype:
        """The arithmetic's type: a model in another precision than float32 keeps its own.

        Raises:
            ConfigError: this device has no fast bfloat16, or no TF32.
        """
        weight = next(model.parameters())
        device = weight.device
        if self.precision is Precision.FP32:
            return weight.dtype
        if self.precision is Precision.TF32:
            if not has_tf32(device.type):
                raise ConfigError(
                    f"precision=tf32: this {device.type} has no TF32, NVIDIA GPUs from Ampere on "
                    "do; leave precision out"
                )
            return weight.dtype
        if not has_bf16(device.type):
            raise ConfigError(
                f"precision=bf16: this {device.type} does not multiply bfloat16 numbers, it would "
                "be slower than fp32; leave precision out"
            )
        return torch.bfloat16

    def arithmetic(self, device_type: str) -> AbstractContextManager[None]:
        """In this block a network computes as :attr:`precision` says; see there for threads."""
        return float32_products(device_type, tf32=self.precision is Precision.TF32)

    def each(self, computed: Iterator[T], device_type: str) -> Iterator[T]:
        """Items that are computed one by one, each under :meth:`arithmetic`."""
        while True:
            with self.arithmetic(device_type):
                try:
                    item = next(computed)
                except StopIteration:
                    return
            yield item


ISAS_WITHOUT_BF16 = {
    "SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI",
}  # fmt: skip
"""Values of oneDNN's own environment variable under which it has no fast bfloat16 products."""


@cache
def has_bf16(device_type: str) -> bool:
    """Whether the device multiplies bfloat16 in hardware.

    On a CPU a limit set with ``ONEDNN_MAX_CPU_ISA`` counts: oneDNN then emulates bfloat16 as it
    does on a processor without it.
    """
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device_type == "cpu":
        if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in ISAS_WITHOUT_BF16:
            return False
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        probes = [getattr(torch.cpu, name) for name in names if hasattr(torch.cpu, name)]
        # oneDNN also runs bfloat16 where it has to emulate it, slower than float32.
        return any(bool(probe()) for probe in probes)
    return False


@cache
def has_tf32(device_type: str) -> bool:
    """Whether the device has TF32: NVIDIA GPUs of compute capability 8 and more."""
    if device_type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability() >= (8, 0)
