"""The inference benchmark: its measuring means what it says, and the command runs."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from tests.commands import Done, in_process

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MIB = 2**20


@pytest.fixture(scope="module")
def measure() -> Iterator[ModuleType]:
    """``benchmarks/_measure.py``; the scripts there import each other by their plain names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("_measure")


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


def test_peak_is_the_commands_own(measure: ModuleType) -> None:
    # A process made straight from this one would count these 300 MiB as its own peak.
    held = bytearray(300 * MIB)
    held[:: 4 * 1024] = b"x" * len(held[:: 4 * 1024])
    assert measure.peak_bytes() > 300 * MIB
    idle = measure.run(python("pass"), threads=1).peak
    assert 2 * MIB < idle < 60 * MIB
    busy = measure.run(python("x = b'x' * (200 << 20)"), threads=1).peak
    assert 195 * MIB < busy - idle < 210 * MIB


def test_seconds_and_output_of_a_command(measure: ModuleType) -> None:
    code = "import os, time; time.sleep(.3); print('a'); print(os.environ['OMP_NUM_THREADS'])"
    ran = measure.run(python(code), threads=3)
    assert ran.seconds > 0.3
    assert ran.output == "a\n3"


def test_a_command_that_fails_is_an_error(measure: ModuleType) -> None:
    from pcsr_lightning.errors import PCSRError

    with pytest.raises(PCSRError, match="ended with 3 and said: because"):
        measure.run(python("import sys; print('because', file=sys.stderr); sys.exit(3)"), 1)


def test_rows_take_turns(measure: ModuleType) -> None:
    order: list[str] = []
    seen: list[tuple[str, int]] = []

    def call(name: str, value: int) -> int:
        order.append(name)
        return value

    calls = {"a": lambda: call("a", 1), "b": lambda: call("b", 2)}
    timings = measure.interleaved(calls, 3, lambda name, result: seen.append((name, result)))
    assert order == ["a", "b"] * 3
    assert seen == [("a", 1), ("b", 2)]
    assert all(len(timing.seconds) == 3 for timing in timings.values())


def command(folder: Path, *words: str) -> Done:
    """The benchmark as a command, with no reference data but an empty folder for it."""
    (folder / "shared").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        main = importlib.import_module("inference").main
        return in_process(lambda: main(words), folder, {"PCSR_SHARED": str(folder / "shared")})


@pytest.mark.slow
def test_quick_run(tmp_path: Path) -> None:
    done = command(tmp_path, "--quick", "--only", "1,2", "--threads", "1", "--out", "found")
    assert done.code == 0, done.err
    assert (tmp_path / "found/inference.md").read_text() == done.out
    assert "## Table 1" in done.out
    assert "## Table 2" in done.out
    facts = json.loads((tmp_path / "found/inference.json").read_text())
    rows = {(r["kind"], r["precision"], r["mode"]): r for r in facts["ways"][0]["rows"]}
    for mode in ("k = 0", "adaptive", "budget .5"):
        plain, ours = rows["plain way", "fp32", mode], rows["ours", "fp32", mode]
        assert ours["same"] >= 0.9995
        assert ours["psnr"] == pytest.approx(plain["psnr"], abs=0.005)
        # Hoisting saves work, and nothing else differs.
        assert 0.5 < ours["gmacs"] / plain["gmacs"] < 1
        assert ours["after"] >= ours["before"] > 50 * MIB


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--only", "7"], 2, "must be some of 1,2,3,4,5, not '7'"),
        (["--quick", "--only", "2", "--model", "nothing"], 1, "no model is called 'nothing'"),
    ],
    ids=["table", "model"],
)
def test_mistakes(words: list[str], code: int, said: str, tmp_path: Path) -> None:
    done = command(tmp_path, *words)
    assert done.code == code
    assert said in done.err
    assert "Traceback" not in done.err


def test_the_tables_of_a_gpu_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    """Everything but the GPU: the published way, the original models, ours, and the limits."""
    from tests.small import small_original, small_pcsr

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        cuda, inputs = (importlib.import_module(n) for n in ("_inference_cuda", "_inputs"))
        patch.setattr(cuda, "load_pcsr", lambda name: small_pcsr(name))
        patch.setattr(cuda, "load_original", lambda name: small_original(name))
        patch.setattr(cuda, "REPEATS", 1)
        patch.setattr(cuda, "WARM", 0)
        photograph = inputs.find_photograph(None)
        text = cuda.report([("carn", "carn"), ("fsrcnn", None)], photograph, "cpu", quick=True)
    assert capsys.readouterr().out.split() == text.split()
    assert "| carn, x4, budget .5 | 0.000 %, 0.0e+00 | 0.000 %, 0.0e+00 |" in text
    for way in (
        "published way, fp32, k = 0",
        "original, bf16, channels last",
        "ours, fp32, all heavy",
    ):
        assert f"| carn, 20 x 12, {way} |" in text
    assert "failed" not in text
    assert text.endswith("## Warnings\n\nNone.")


def test_a_gpu_is_asked_for_where_there_is_none(tmp_path: Path) -> None:
    done = command(tmp_path, "--device", "cuda", "--out", str(tmp_path))
    assert done.code == 1
    assert "there is no CUDA device here" in done.err
