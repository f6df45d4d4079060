"""PCSR, ClassSR and ARM on one backbone at equal training, and the BD-rates between them.

    python benchmarks/rivals.py --train DIR --valid DIR --test Set5 Set14 --out RUNS

Equal are the pictures, the crops of 32 x 32 LR pixels, the optimizer, its schedule, the seed, the
steps and the 16 crops that each network sees in a step (ClassSR's three networks 48 together). The
runs follow each other; repeated, the command goes on where it was. docs/rivals.md has the results.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from pcsr_lightning.evaluation.bjontegaard import bjontegaard_difference

Curve = list[tuple[float, float]]
"""Points of cost and PSNR."""

VALUES = {
    "pcsr-2": ("published", "[-2,-1,-0.5,-0.25,0,0.25,0.5,1,2,4,8]"),
    "classsr": ("overlapped", "[-4,-1,0,0.5,1,2,4,8,16,32]"),
    "arm": ("overlapped", "[0,0.03125,0.0625,0.125,0.25,0.5,1,2]"),
}
"""Each method's protocol, and the k of its curve."""
COUNTS = ("gmacs", "gflops_published")


def run(command: str, *settings: str) -> None:
    subprocess.run([sys.executable, "-m", f"pcsr_lightning.{command}", *settings], check=True)


def train(args: argparse.Namespace, name: str, steps: int, *settings: str) -> None:
    """One run; it is left alone if it is there, and goes on if it was interrupted."""
    folder = args.out / name
    if (folder / "run.json").is_file():
        return
    again = [f"ckpt_path={folder}"] if (folder / "checkpoints" / "last.ckpt").is_file() else []
    common = (
        f"backbone={args.backbone} data=folder data.root={args.train} data.val_root={args.valid} "
        f"data.val_limit=20 seed={args.seed} trainer.precision={args.precision} "
        "optimizer=muon scheduler=trapezoid scheduler.warmup=50 "
        "trainer.val_check_interval=100000 trainer.num_sanity_val_steps=0 callbacks.progress=null"
    )
    run(
        "train", *settings, *common.split(), f"trainer.max_steps={steps}",
        f"hydra.run.dir={folder}", f"threads={args.threads}", *again,
    )  # fmt: skip


def train_all(args: argparse.Namespace) -> None:
    first, second = args.steps
    pixels, one, more = "stage.queries=per_pixel:2", "data.batch_size=16", "data.batch_size=48"
    fast, slow = "optimizer.lr=2e-3", "optimizer.lr=1e-3"
    train(args, "pcsr-1", first, "stage=1", fast, pixels, one)
    train(args, "classsr-branches", first, "stage=classsr_branches", fast, more)
    train(args, "arm", first + second, "stage=arm", fast, one)
    train(args, "pcsr-2", second, "stage=2", f"init={args.out / 'pcsr-1'}", slow, pixels, one)
    branches = args.out / "classsr-branches"
    train(args, "classsr", second, "stage=classsr", f"init={branches}", slow, one)


def points(args: argparse.Namespace, name: str, pictures: Path) -> list[dict[str, float]]:
    """A method's curve on a set."""
    folder, (protocol, values) = args.out / "eval" / f"{name}-{pictures.name}", VALUES[name]
    if not (folder / "sweep.json").is_file():
        run(
            "evaluate", f"model={args.out / name}", f"threads={args.threads}",
            f"data.root={pictures}", f"protocol={protocol}", "sweep=k", f"sweep_values={values}",
            f"hydra.run.dir={folder}",
        )  # fmt: skip
    found: list[dict[str, float]] = json.loads((folder / "sweep.json").read_text())["points"]
    return found


def parser(description: str | None) -> argparse.ArgumentParser:
    """What all comparisons at equal training are asked."""
    p = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    p.add_argument("--train", type=Path, required=True)
    p.add_argument("--valid", type=Path, required=True)
    p.add_argument("--test", type=Path, nargs="+", required=True, help="folders of HR pictures")
    p.add_argument("--out", type=Path, required=True, help="folder of the runs")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--precision", default="32-true")
    p.add_argument("--threads", type=int, default=1)
    return p


def difference(rival: Curve, curve: Curve) -> tuple[str, str]:
    """Change of cost at equal PSNR, in percent, and of PSNR at equal cost, in dB."""
    found = bjontegaard_difference(rival, curve)
    rate, gain = (
        "-" if each is None else f"{each:+.{digits}f}"
        for each, digits in ((found.rate, 0), (found.psnr, 2))
    )
    return rate, gain


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--backbone", default="fsrcnn", choices=["fsrcnn", "carn", "srresnet"])
    p.add_argument("--steps", type=int, nargs=2, default=[1500, 500], help="of both stages")
    args = p.parse_args()
    args.out = args.out.resolve()
    train_all(args)
    print("| set | count | rival | dB at equal cost | cost at equal PSNR |\n|---|---|---|---|---|")
    for pictures in args.test:
        curves = {name: points(args, name, pictures) for name in VALUES}
        for count in COUNTS:
            pairs = {n: [(q[count], q["psnr"]) for q in c if q[count]] for n, c in curves.items()}
            for rival in ("classsr", "arm"):
                rate, gain = difference(pairs[rival], pairs["pcsr-2"])
                print(f"| {pictures.name} | {count} | {rival} | {gain} | {rate} % |")


if __name__ == "__main__":
    main()
