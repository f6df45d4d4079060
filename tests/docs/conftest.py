"""Runs what the pages of the documentation say, as their reader would.

A block's comment ``<!-- in the tests: KEY=VALUE ... -->`` names words of the training command that
replace those with the same key, or are added.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from tests.warm_python import warm_folder

from pcsr_lightning.data import SAMPLE_FOLDER

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(
    r"(?:^<!-- in the tests: (?P<words>.+?) -->\n)?^```(?P<kind>.*)\n(?P<text>(?:.*\n)*?)^```$",
    re.MULTILINE,
)
NOT_RUN = {
    "make demo": "installs the library into .venv; CI runs it by itself",
    "make test": "installs the library into .venv and runs these very tests",
    "make app": "a server, which does not end; it has tests of its own",
    "pip install PATH_OF_THE_CHECKOUT": "an installation; CI installs the wheel elsewhere",
}
"""Lines of the pages that are not run, and why."""


@dataclass(frozen=True)
class Block:
    """A fenced block: language, text, and the words that the tests put into its commands."""

    kind: str
    text: str
    words: tuple[str, ...]


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page of docs/, in order."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [
        Block(match["kind"], match["text"], tuple(shlex.split(match["words"] or "")))
        for match in BLOCK.finditer(text)
    ]


@pytest.fixture(scope="session", name="blocks_of")
def blocks_of_fixture() -> Callable[[str], list[Block]]:
    """:func:`blocks_of`, for tests."""
    return blocks_of


@pytest.fixture(scope="session")
def not_run() -> dict[str, str]:
    """:data:`NOT_RUN`, for tests."""
    return NOT_RUN


def with_words(line: str, words: tuple[str, ...]) -> str:
    """A training command with other words; ``release`` hands those after ``--`` to the training.

    A model of two steps is no better than bilinear enlargement, which ``release`` refuses.
    """
    given = shlex.split(line)
    assert given[:2] == ["python", "-m"], f"only commands of ours take words: {line}"
    keys = {word.split("=")[0] for word in words}
    kept = [word for word in given if word.split("=")[0] not in keys]
    between = ["--allow-unsound", "--"] if given[2] == "pcsr_lightning.release" else []
    return shlex.join([*kept, *between, *words])


def as_script(block: Block) -> str:
    """The lines of a shell block that are run."""
    lines = [line for line in block.text.splitlines() if line not in NOT_RUN]
    if block.words:
        lines = [with_words(line, block.words) for line in lines]
    return "\n".join(lines)


@pytest.fixture(scope="session")
def command_path() -> str:
    """A PATH whose ``python`` starts at once."""
    return f"{warm_folder()}{os.pathsep}{os.environ['PATH']}"


def furnish(folder: Path) -> None:
    """What a reader has: a photograph, and folders of them."""
    photo = Image.open(SAMPLE_FOLDER / "valid" / "chelsea.png").convert("RGB")
    photo.resize((96, 64)).save(folder / "photo.jpg", quality=95)
    photo.resize((64, 48)).save(folder / "photo.png")
    (folder / "photos" / "more").mkdir(parents=True)
    photo.resize((96, 64)).save(folder / "photos" / "a.png")
    photo.resize((64, 64)).save(folder / "photos" / "more" / "b.png")
    (folder / "Set14").mkdir()
    shutil.copy(SAMPLE_FOLDER / "train" / "astronaut.png", folder / "Set14")
    (folder / "pictures").mkdir()
    for number in range(10):
        left, top = 30 * number, 15 * number
        crop = photo.crop((left, top, left + 160, top + 144))
        crop.save(folder / "pictures" / f"{number}.png")


RunPage = Callable[[str], tuple[Path, list[str]]]


@pytest.fixture(scope="session")
def run_page(
    command_path: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> RunPage:
    """Runs a page's blocks in order in one folder; gives it, and what each block printed."""

    def run(page: str) -> tuple[Path, list[str]]:
        folder = tmp_path_factory.mktemp("reader")
        furnish(folder)
        for name in re.findall(r"[\w-]+\.pth", (DOCS / page).read_text(encoding="utf-8")):
            shared: Path = request.getfixturevalue("shared")
            shutil.copy(shared / "reference" / name, folder)
        environment = {
            **os.environ,
            "PATH": command_path,
            "XDG_CACHE_HOME": str(folder / "cache"),
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "160",
        }
        printed = []
        for block in blocks_of(page):
            command = command_of(block, folder)
            if command is None:
                continue
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
            )
            said = f"{page}:\n{block.text}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
            assert done.returncode == 0, said
            printed.append(done.stdout)
        return folder, printed

    return run


@pytest.fixture
def run_script(command_path: str, tmp_path: Path) -> Callable[..., None]:
    """Runs a script of the repository to its end."""

    def run(*words: str | Path) -> None:
        environment = {**os.environ, "PATH": command_path, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            ["python", *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    return run


def command_of(block: Block, folder: Path) -> list[str] | None:
    """What runs a block; files that it shows are written instead."""
    named = re.match(r"# (\S+\.(?:py|yaml))\n", block.text)
    if named:
        path = folder / named[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
        return None
    if block.kind in ("bash", "sh"):
        return ["bash", "-euo", "pipefail", "-c", as_script(block)]
    if block.kind == "python":
        return ["python", "-c", block.text]
    if block.kind == "pycon":
        (folder / "session.txt").write_text(block.text, encoding="utf-8")
        return ["python", "-m", "doctest", "-o", "ELLIPSIS", "session.txt"]
    return None
