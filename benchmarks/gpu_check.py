"""On a CUDA device: is upscaling right and how fast, then the same of captured training steps.

    python benchmarks/gpu_check.py
    python benchmarks/gpu_check.py inference

The same as ``python benchmarks/inference.py --device cuda``, about four minutes, and ``python
benchmarks/training.py --device cuda`` with few steps, about two minutes.
"""

from __future__ import annotations

import sys

import inference
import training


def main(argv: list[str]) -> int:
    """Runs both parts, or the one that the first word names; other words are for that part."""
    parts, words = ["inference", "training"], argv
    if argv and argv[0] in parts:
        parts, words = argv[:1], argv[1:]
    codes = []
    if "inference" in parts:
        codes.append(inference.main(["--device", "cuda", *words]))
    if "training" in parts:
        codes.append(training.main(["--device", "cuda", "--steps", "60", *words]))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
