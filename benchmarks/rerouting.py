"""What moving the budget costs, beside the first run: the demo page's slider.

    python benchmarks/rerouting.py
    python benchmarks/rerouting.py --threads 1 --repeats 9

For each model, one photograph enlarged x4: the first run (backbone, classifier, upsamplers) at a
budget of 70 %; then other budgets from what it left behind, each from a state that has seen the
first run only; and the same once the all-heavy run has been made for comparison, as the page does
in the background. Then how much of that run is enough for every move to be cheap: it is stopped
after each of its steps, and the budget moved to 100 %. Medians of rounds that take turns, in
processor seconds of all threads together: other work on the machine disturbs them less than the
clock's.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import resources
from pathlib import Path

import torch
from _inputs import SCALE, load_pcsr
from _measure import markdown, run_script, say
from torch import Tensor

from pcsr_lightning.app.all_heavy import AllHeavyRun
from pcsr_lightning.images import read_rgb8
from pcsr_lightning.inference import RoutingConfig, Session, upscale_by
from pcsr_lightning.networks import PCSR

MODELS = ("carn-pcsr-multi", "fsrcnn-pcsr-x4")
PHOTOGRAPH = "data/sample/train/astronaut.png"
SIDE = 160
FIRST = 0.7
BUDGETS = (0.3, 0.5, 0.6, 0.69, 0.8, 0.9, 1.0)
GOAL = 0.3


def routing(budget: float) -> RoutingConfig:
    """A budget as the page asks for it."""
    return RoutingConfig(budget=budget)


def timed(call: Callable[[], object]) -> float:
    """Its processor seconds."""
    start = time.process_time()
    call()
    return time.process_time() - start


class _Enough(Exception):
    """Ends the background's work."""


def background(session: Session, steps: int) -> float:
    """Processor seconds of the all-heavy run's first steps."""
    done = 0

    def count(_: float) -> None:
        nonlocal done
        done += 1
        if done == steps:
            raise _Enough

    def work() -> None:
        with suppress(_Enough):
            AllHeavyRun(session).run(count)

    return timed(work) if steps else 0.0


def steps_of(session: Session) -> int:
    """How many steps the all-heavy run has."""
    told: list[float] = []
    AllHeavyRun(session).run(told.append)
    return len(told)


def one_round(model: PCSR, lr_13hw: Tensor, size: tuple[int, int]) -> dict[str, float]:
    """Seconds of everything, by name."""
    seconds = {"upscale": timed(lambda: upscale_by(model, lr_13hw, routing(FIRST), size=size))}
    for budget in BUDGETS:
        start = time.process_time()
        session = Session(model, lr_13hw, size=size)
        session.run(routing(FIRST))
        seconds[f"first, before {budget}"] = time.process_time() - start
        seconds[f"to {budget}"] = timed(partial(session.run, routing(budget)))
    seconds["all-heavy"] = timed(AllHeavyRun(session).run)
    for budget in BUDGETS:
        session.run(routing(FIRST))
        seconds[f"to {budget}, all-heavy known"] = timed(partial(session.run, routing(budget)))
    for steps in range(1, 1 + steps_of(session)):
        session = Session(model, lr_13hw, size=size)
        session.run(routing(FIRST))
        seconds[f"background {steps}"] = background(session, steps)
        seconds[f"to {BUDGETS[-1]} after {steps}"] = timed(
            partial(session.run, routing(BUDGETS[-1]))
        )
    return seconds


def enough(median: dict[str, float]) -> str:
    """How long the background must have worked for every move to be cheap enough.

    It saves the moves upwards heavy pixels; of those, all the way up is the dearest.
    """
    first, top = median["first"], BUDGETS[-1]
    down = max(median[f"to {budget}"] for budget in BUDGETS if budget < FIRST)
    took, worst, steps = 0.0, max(down, median[f"to {top}"]), 0
    while worst > GOAL * first and f"background {steps + 1}" in median:
        steps += 1
        took, worst = median[f"background {steps}"], max(down, median[f"to {top} after {steps}"])
    return (
        f"After the first result, {took / first:.0%} of the first run's time in the background is "
        f"enough for every move to take at most {GOAL:.0%} (then {worst / first:.0%}; "
        f"step {steps} of the all-heavy run)."
    )


def measure(name: str, rounds: int) -> list[str]:
    """One model's table."""
    model = load_pcsr(name)
    path = Path(str(resources.files("pcsr_lightning"))) / PHOTOGRAPH
    lr_13hw = read_rgb8(path)[None, :, :SIDE, :SIDE].float() / 255
    size = (SCALE * SIDE, SCALE * SIDE)
    one_round(model, lr_13hw[..., :32, :32], (SCALE * 32, SCALE * 32))  # to warm up
    found: dict[str, list[float]] = {}
    for n in range(rounds):
        say(f"{name}: round {n + 1} of {rounds}")
        for key, value in one_round(model, lr_13hw, size).items():
            found.setdefault("first" if key.startswith("first") else key, []).append(value)
    median = {key: statistics.median(values) for key, values in found.items()}
    first = median["first"]
    rows = []
    worst = 0.0
    for budget in BUDGETS:
        new, known = median[f"to {budget}"], median[f"to {budget}, all-heavy known"]
        worst = max(worst, known / first)
        cells = [f"{budget:.0%}", f"{new:.3f}", f"{new / first:.0%}"]
        rows.append([*cells, f"{known:.3f}", f"{known / first:.0%}"])
    header = [
        f"re-routed from {FIRST:.0%} to",
        "s",
        "of first run",
        "s, all-heavy known",
        "of first run",
    ]
    met = "met" if worst <= GOAL else "missed"
    return [
        f"## {name}, LR {SIDE} x {SIDE} x{SCALE}, {torch.get_num_threads()} thread(s), "
        f"medians of {rounds} rounds",
        "",
        f"First run at {FIRST:.0%}: {first:.3f} processor s (plain `upscale`, which keeps nothing: "
        f"{median['upscale']:.3f} s). All-heavy for comparison: {median['all-heavy']:.3f} s.",
        "",
        markdown(header, rows),
        "",
        f"Once the all-heavy run is there: at most {worst:.0%} of the first run "
        f"(goal {GOAL:.0%}): {met}.",
        "",
        enough(median),
        "",
    ]


def _run(rounds: int) -> None:
    for name in MODELS:
        print("\n".join(measure(name, rounds)), flush=True)


if __name__ == "__main__":
    sys.exit(run_script("rerouting.py", 5, _run))
