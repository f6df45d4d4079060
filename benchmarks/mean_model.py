"""The weighted mean of two trainings of one model, weight by weight.

    python benchmarks/mean_model.py ONE OTHER --share .6 --out MEAN

Where both began at the same weights the mean is often better than either (Wortsman et al., "Model
soups", ICML 2022): the first stage of carn-photo-multi was made so.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pcsr_lightning.weights import load, save


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("one", help="a model: file, run folder or released name")
    p.add_argument("other", help="another of the same architecture")
    p.add_argument("--share", type=float, default=0.5, help="of the other")
    p.add_argument("--out", type=Path, required=True, help="the mean's file, without suffix")
    args = p.parse_args(argv)
    one, other = load(args.one), load(args.other)
    if one.config() != other.config():
        raise SystemExit(f"{args.one} and {args.other} are not of one architecture")
    others = other.state_dict()
    for name, weight in one.state_dict().items():
        if weight.is_floating_point():  # batch norm's statistics too, not its count
            weight.lerp_(others[name], args.share)
    print(save(one, args.out, {"mean_of": vars(args) | {"out": str(args.out)}}))


if __name__ == "__main__":
    main()
