"""Whether upsamplers in int8 would be faster on this CPU: blocks of queries, and whole pictures.

    python benchmarks/int8_upsamplers.py --repeats 5

A block is as many queries as the library has in work at a time. The int8 ways: PyTorch's dynamic
quantisation, onnxruntime's, and oneDNN's int8 layers in a row, whose scales are those of the first
block that they see (nothing but the first input and the last output is floating point).
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import onnxruntime
import torch
from _inputs import SCALE, find_photograph, load_pcsr, shared_folder
from _measure import DTYPES, interleaved, markdown, run_script
from onnxruntime.quantization import quantize_dynamic
from torch import Tensor, nn

import pcsr_lightning
from pcsr_lightning.evaluation import psnr
from pcsr_lightning.inference.kernels import BLOCK_VALUES, QUANTUM, MLPKernel, QueryKernels
from pcsr_lightning.networks import PCSR

LR_SIZE = (276, 420)
MODELS = ("fsrcnn-pcsr-x4", "carn-pcsr-x4")


class Int8Tail:
    """All that follows an upsampler's first layer, by oneDNN's int8 layers.

    Args:
        kernel: of float32 or bfloat16.
        first_KC: input to take the scales from.
    """

    def __init__(self, kernel: MLPKernel, first_KC: Tensor) -> None:
        x = first_KC.float().relu()
        self.scales, self.layers = [float(x.max()) / 255], []
        for n, (weight, bias) in enumerate(kernel.layers, start=1):
            w_scale = weight.float().abs().amax(1).clamp_min(1e-8) / 127
            rounded = (weight.float() / w_scale[:, None]).round().to(torch.int8)
            packed = torch.ops.onednn.qlinear_prepack(rounded, None)
            zeros = torch.zeros(len(w_scale), dtype=torch.int64)
            self.layers.append((packed, w_scale, zeros, bias.float()))
            x = nn.functional.linear(x, weight.float(), bias.float()).relu()
            self.scales.append(float(x.max()) / 255 if n < len(kernel.layers) else 1.0)

    def __call__(self, first_KC: Tensor) -> Tensor:
        """``(K, C) -> (O, K)``; the first ReLU is the lower end of the bytes."""
        x = torch.quantize_per_tensor(first_KC.float(), self.scales[0], 0, torch.quint8).int_repr()
        for n, (packed, w_scale, zeros, bias) in enumerate(self.layers, start=1):
            last = n == len(self.layers)
            kind, after = (torch.float32, "none") if last else (torch.uint8, "relu")
            x = torch.ops.onednn.qlinear_pointwise(
                x, self.scales[n - 1], 0, packed, w_scale, zeros, bias, self.scales[n], 0, kind,
                after, [], "",
            )  # fmt: skip
        return x.t()


_TAILS: dict[int, tuple[MLPKernel, Int8Tail]] = {}


def int8_finish(kernel: MLPKernel, first_KC: Tensor) -> Tensor:
    """Stands for :meth:`MLPKernel.finish`, which upsamplers alone call."""
    if id(kernel) not in _TAILS:
        _TAILS[id(kernel)] = kernel, Int8Tail(kernel, first_KC)
    return _TAILS[id(kernel)][1](first_KC)


def _run(rounds: int) -> None:
    torch.backends.quantized.engine = "onednn"
    warnings.filterwarnings("ignore")
    models = {name: load_pcsr(name) for name in MODELS}
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        _blocks(models, rounds, Path(folder))
    _pictures(models, rounds)


def _blocks(models: dict[str, PCSR], rounds: int, folder: Path) -> None:
    calls: dict[str, Callable[[], object]] = {}
    for name, model in models.items():
        grid = model.grid(LR_SIZE, (LR_SIZE[0] * SCALE, LR_SIZE[1] * SCALE))
        for j, which in enumerate(("heavy", "light")):
            width = model.upsampler(j).hidden[0]
            first_KC = torch.randn(BLOCK_VALUES["cpu"] // width // QUANTUM * QUANTUM, width)
            for precision, dtype in DTYPES.items():
                kernel, x = QueryKernels.of(model, grid, dtype).upsampler(j), first_KC.to(dtype)
                calls[f"{name}|{which}|{precision}"] = lambda kernel=kernel, x=x: kernel.finish(x)
            tail = Int8Tail(QueryKernels.of(model, grid, torch.float32).upsampler(j), first_KC)
            calls[f"{name}|{which}|int8, oneDNN"] = lambda tail=tail, x=first_KC: tail(x)
            plain = nn.Sequential(*(type(m)() if isinstance(m, nn.ReLU) else m
                                    for m in model.upsampler(j).tail))  # fmt: skip
            dynamic = torch.ao.quantization.quantize_dynamic(plain, {nn.Linear})
            calls[f"{name}|{which}|int8, PyTorch dynamic"] = lambda dynamic=dynamic, x=first_KC: (
                dynamic(x)
            )
            calls[f"{name}|{which}|int8, onnxruntime dynamic"] = _onnx(plain, first_KC, folder)
    times = interleaved(calls, 20 * rounds)
    kinds = list(dict.fromkeys(key.split("|")[2] for key in calls))
    cases = list(dict.fromkeys(key.rpartition("|")[0] for key in calls))
    print("Milliseconds of a block of queries, behind the first layer\n")
    rows = [
        [*case.split("|"), *(f"{1e3 * times[f'{case}|{kind}'].median:.2f}" for kind in kinds)]
        for case in cases
    ]
    print(markdown(["model", "upsampler", *kinds], rows))


def _onnx(plain: nn.Module, first_KC: Tensor, folder: Path) -> Callable[[], object]:
    whole, small = folder / "float.onnx", folder / "int8.onnx"
    torch.onnx.export(plain, (first_KC,), whole, input_names=["x"], dynamo=False)
    quantize_dynamic(whole, small)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(small, options, providers=["CPUExecutionProvider"])
    feed = {"x": first_KC.numpy()}
    return lambda: session.run(None, feed)


def _pictures(models: dict[str, PCSR], rounds: int) -> None:
    lr_13hw, hr_13HW = find_photograph(shared_folder()).pair(LR_SIZE)
    calls: dict[str, Callable[[], Tensor]] = {}
    found: dict[str, float] = {}
    for name, model in models.items():
        for precision in DTYPES:

            def way(model: PCSR = model, precision: str = precision) -> Tensor:
                return pcsr_lightning.upscale(model, lr_13hw, SCALE, precision=precision).image

            def int8(way: Callable[[], Tensor] = way) -> Tensor:
                _TAILS.clear()
                with patch.object(MLPKernel, "finish", int8_finish):
                    return way()

            calls |= {f"{name}|{precision}": way, f"{name}|{precision}, upsamplers int8": int8}
    times = interleaved(
        calls, rounds, lambda key, image: found.update({key: psnr(image, hr_13HW, SCALE)})
    )
    print(f"\nSeconds of a whole picture, LR {LR_SIZE[0]} x {LR_SIZE[1]}, k = 0\n")
    rows = [[*key.split("|"), times[key].text(), f"{found[key]:.3f}"] for key in calls]
    print(markdown(["model", "arithmetic", "seconds", "PSNR dB"], rows))


if __name__ == "__main__":
    sys.exit(run_script("int8_upsamplers.py", 5, _run))
