"""``pcsr models``: what each released model is best for."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.commands import run_command

import pcsr_lightning
from pcsr_lightning.weights import DEFAULT_MODEL, describe_models


def test_every_model_has_a_line() -> None:
    done = run_command("models", code=0)
    assert done.err == ""
    lines = done.out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    table = {line.split()[0]: line for line in lines[1 : lines.index("")]}
    assert next(iter(table)) == DEFAULT_MODEL
    assert sorted(table) == pcsr_lightning.list_models()
    assert "  x2 to x4  1.00  " in table[DEFAULT_MODEL]
    assert " x4  " in table["fsrcnn-pcsr-x4"]


def test_floors_are_those_of_the_docs() -> None:
    """Of every model that routes, at every scale of the table."""
    lines = run_command("models", "--floors", code=0).out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    rows = [re.split(r"  +", line) for line in lines[: lines.index("")]]
    page = (Path(__file__).parents[2] / "docs" / "choosing.md").read_text("utf-8")
    table = page.partition("## The lowest possible cost")[2].partition("## On Set14")[0]
    said = {}
    for line in (line for line in table.splitlines() if line.startswith("|")):
        first, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        said |= {name: cells for name in re.findall(r"`([\w-]+)`", first) if cells}
    assert said == {name: cells for name, *cells in rows[1:]}
    assert f"| | {' | '.join(rows[0][1:])} |" in table
    assert sorted(said) == sorted(model.name for model in describe_models() if model.has_classes)


def test_as_json() -> None:
    found = [json.loads(line) for line in run_command("models", "--json", code=0).out.splitlines()]
    assert all(one["best_for"] and one["relative_time"] > 0 for one in found)
    by_name = {one["name"]: one for one in found}
    assert by_name[DEFAULT_MODEL]["scales"] == [2, 4]
    assert by_name["fsrcnn-pcsr-x4"]["relative_time"] < 0.7
    assert by_name["carn-x4"]["relative_time"] > 1
