"""Runs every command and snippet of the documentation; compares its numbers with the cards."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = "../README.md"
PAGES = [README, *sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))]
RUN = {"bash", "sh", "python", "pycon"}
SHOWN = {"yaml", "toml", "text"}
"""Languages of blocks that are not run; those that begin with a file name are written to it."""
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
OWN_TEST = {"add-a-backbone.md": "test_add_a_backbone.py"}
OVERRIDES = (
    "--size=400x300",
    "sweep_values=[-0.5,0,1]",
    "trainer.max_steps=2",
    "trainer.max_time=00:00:01 stage.queries=64",
    "trainer.max_steps=2 stage.queries=64",
    "trainer.max_steps=2 stage.queries=64 num_classes=2,3",
    "trainer.max_steps=2 stage.queries=64 hydra.sweeper.n_trials=2",
    "trainer.max_steps=2 stage.queries=64 data=folder data.root=pictures",
)
"""What the tests may replace: sizes of results, steps, time, trials, classes, values, data."""


TO_RUN = [
    page
    for page in PAGES
    if page not in OWN_TEST
    and re.search(r"^```(?:bash|sh|py)", (DOCS / page).read_text("utf-8"), re.M)
]


@pytest.mark.parametrize("page", TO_RUN)
def test_commands_of_a_page(page: str, run_page: Any, blocks_of: Any) -> None:
    to_run = [b for b in blocks_of(page) if b.kind in RUN and not re.match(r"# \S+\.py\n", b.text)]
    folder, printed = run_page(page)
    assert len(printed) == len(to_run)
    check = {"upscale.md": upscaled, "train.md": trained, "reproduce.md": reproduced}.get(page)
    if check is not None:
        check(folder, printed)


def upscaled(folder: Path, printed: list[str]) -> None:
    sizes = {
        "photo_x4.jpg": (384, 256),
        "big.png": (384, 256),
        "wide.webp": (240, 160),
        "classes.png": (240, 160),
        "large/a.webp": (400, 267),
        "large/more/b.webp": (300, 300),
        "large/a_x4.png": (384, 256),
        "piped.png": (384, 256),
        "both/more/b.png": (256, 256),
        "lean.png": (384, 256),
        "elsewhere.png": (384, 256),
        "from-python.png": (384, 256),
    }
    for name, size in sizes.items():
        with Image.open(folder / name) as picture:
            assert picture.size == size, name
    assert (folder / "pcsr.onnx").stat().st_size > 50_000


def trained(folder: Path, printed: list[str]) -> None:
    metrics = json.loads((folder / "mine" / "metrics.json").read_text())
    assert metrics
    with Image.open(folder / "mine.png") as picture:
        assert picture.size == (384, 256)
    assert (folder / "outputs" / "release" / "fsrcnn-pcsr-x4").is_dir()


def reproduced(folder: Path, printed: list[str]) -> None:
    # On one picture: the paper's row for all of Set14 stands below ours, marked as published.
    assert re.search(r"CARN-PCSR +Set14 +published +26\.48 ", printed[0]), printed[0]
    assert re.search(r"published.*25\.\d\d|25\.\d\d.*published", printed[1], re.DOTALL), printed[1]
    assert (folder / "carn-pcsr.safetensors").is_file()
    assert len(list((folder / "figures").glob("*.png"))) == 4


def test_every_block_is_known(blocks_of: Any, not_run: dict[str, str]) -> None:
    """No block escapes the tests by its language or by other overrides."""
    used = set()
    for page in PAGES:
        for block in blocks_of(page):
            assert block.kind in RUN | SHOWN, f"{page}: a block of {block.kind or 'no language'}"
            assert " ".join(block.overrides) in {"", *OVERRIDES}, page
            assert page in [*TO_RUN, *OWN_TEST] or block.kind not in RUN, page
            used |= {line for line in block.text.splitlines() if line in not_run}
        text = (DOCS / page).read_text(encoding="utf-8")
        overridden = sum(bool(block.overrides) for block in blocks_of(page))
        assert text.count("<!-- in the tests:") == overridden, page
        # Blocks by indentation would not be seen.
        assert not re.search(r"^\n(?: {4}|\t)\S", FENCED.sub("", text), re.MULTILINE), page
    assert used == set(not_run)
    for name in OWN_TEST.values():
        assert Path(__file__).with_name(name).is_file()


def test_no_command_needs_a_processor_with_bfloat16() -> None:
    """Half of the machines that these tests run on refuse ``--precision bf16``."""
    for page in PAGES:
        for block in FENCED.findall((DOCS / page).read_text(encoding="utf-8")):
            assert not re.search(r"precision[= ]\W?bf16(?!-mixed)", block), page


def test_only_installations_and_servers_are_not_run(not_run: dict[str, str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command, reason in not_run.items():
        tool, *words = command.split()
        assert tool in ("pip", "source") or (tool == "make" and words[0] in targets), command
        assert reason


def said_of_pictures() -> Any:
    return json.loads((DOCS / "images" / "figures.json").read_text())


def test_the_table_of_four_pictures_is_what_was_measured() -> None:
    measured = said_of_pictures()["choosing-curves.png"]
    text = (DOCS / "choosing.md").read_text(encoding="utf-8")
    ways = ["all light", "k=0", "adaptive", "budget=0.55"]
    for name in measured:
        [row] = [line for line in text.splitlines() if line.startswith(f"| {name}")]
        cells = [cell.strip() for cell in row.strip("|").split("|")][1:]
        for way, cell in zip(ways, cells, strict=False):
            found = measured[name][way]
            assert cell == f"{found['psnr']:.2f} dB, {100 * found['of_all_heavy']:.0f} %", row
        assert cells[-1] == f"{measured[name]['all heavy']['psnr']:.2f} dB"


def on_set14(name: str) -> dict[str, tuple[float, float]]:
    """PSNR and GMACs at x4 of each routing on a model's card."""
    cards = ROOT / "src" / "pcsr_lightning" / "weights" / "released"
    table = (cards / f"{name}.md").read_text(encoding="utf-8").partition("| Set14, x4 |")[2]
    rows = re.findall(r"^\| ([^|]+) \| ([\d.]+) \| ([\d.]+) \|", table, re.MULTILINE)
    return {way: (float(psnr), float(gmacs)) for way, psnr, gmacs in rows}


def test_numbers_of_the_models_are_those_of_their_cards() -> None:
    carn, fsrcnn = on_set14("carn-pcsr-x4"), on_set14("fsrcnn-pcsr-x4")
    pages = {page: " ".join((DOCS / page).read_text("utf-8").split()) for page in PAGES}
    at_0 = f"{carn['k = 0'][0]:.2f} dB"
    assert at_0 in pages["models.md"]
    assert at_0 in pages["differences.md"]
    assert f"FSRCNN-PCSR {fsrcnn['k = 0'][0]:.2f} dB" in pages["models.md"]
    light, heavy = "class 1 alone", "class 0 alone"
    floors = [100 * one[light][1] / one[heavy][1] for one in (carn, fsrcnn)]
    said = (
        f"{floors[0]:.0f} % of all heavy with `carn-pcsr-x4`, and {floors[1]:.0f} % with",
        f"({fsrcnn[heavy][1]:.2f} against {carn[light][1]:.2f} GMACs a picture)",
        f"({fsrcnn[heavy][0]:.2f} against {carn[light][0]:.2f} dB)",
        f"From {carn['k = 2'][1]:.1f} GMACs (`k = 2`) on",
        f"is clearly better: {carn['k = 2'][0]:.2f} dB",
    )
    for sentence in said:
        assert sentence in pages["choosing.md"], sentence


def test_pictures_are_small_and_all_are_shown() -> None:
    shown = "".join((DOCS / page).read_text(encoding="utf-8") for page in PAGES)
    for path in (DOCS / "images").iterdir():
        assert path.stat().st_size < 300_000, path.name
        if path.name != "figures.json" and not path.name.endswith("-set14.png"):
            assert path.name in shown, path.name


@pytest.mark.slow
def test_figures_are_drawn_anew(tmp_path: Path, run_script: Callable[..., None]) -> None:
    """They have the same values but for rounding, which differs between processors."""
    run_script(DOCS / "figures.py", "--out", str(tmp_path))
    kept = said_of_pictures()
    drawn = json.loads((tmp_path / "figures.json").read_text())
    assert drawn.keys() == kept.keys()
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "figures.json"}
    for name in kept:
        flat, again = (dict(flattened(said)) for said in (kept[name], drawn[name]))
        assert again.keys() == flat.keys()
        for key, value in flat.items():
            if key != "/largest difference":
                assert again[key] == pytest.approx(value, abs=2e-3, rel=1e-3), (name, key)


def flattened(tree: Any, above: str = "") -> list[tuple[str, float]]:
    if isinstance(tree, dict):
        return [leaf for key, one in tree.items() for leaf in flattened(one, f"{above}/{key}")]
    if isinstance(tree, list):
        return [leaf for n, one in enumerate(tree) for leaf in flattened(one, f"{above}/{n}")]
    return [(above, tree)]
