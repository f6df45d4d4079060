"""On a CUDA device: do captured training steps give the same weights, and how fast are they?

    python benchmarks/gpu_check.py

The same as ``python benchmarks/training.py --device cuda``, with few steps: about two minutes.
"""

from __future__ import annotations

import sys

from training import main

if __name__ == "__main__":
    sys.exit(main(["--device", "cuda", "--steps", "60", *sys.argv[1:]]))
