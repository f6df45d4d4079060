"""Runs the commands and snippets of the documentation, as a reader would.

The comment ``<!-- in the tests: KEY=VALUE --OPTION=VALUE ... -->`` above a block replaces settings
and options of its commands, so that they take seconds. Settings that a command lacks are added.
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
    r"(?:^<!-- in the tests: (?P<overrides>.+?) -->\n)?^```(?P<kind>.*)\n(?P<text>(?:.*\n)*?)^```$",
    re.MULTILINE,
)
NOT_RUN = {
    "make demo": "installs the library into .venv; CI runs it by itself",
    "make test": "installs the library into .venv and runs these very tests",
    "source .venv/bin/activate": "the tests' Python is that of their own environment",
    "make app": "a server, which does not end; it has tests of its own",
    "pip install PATH_OF_THE_CHECKOUT": "an installation; CI installs the wheel elsewhere",
}
"""Commands of the pages that are not run, and why."""


@dataclass(frozen=True)
class Block:
    """A fenced block: language, text, and what the tests replace in its commands."""

    kind: str
    text: str
    overrides: tuple[str, ...]


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page, in order; its path is relative to docs/."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [
        Block(match["kind"], match["text"], tuple(shlex.split(match["overrides"] or "")))
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


def with_overrides(line: str, overrides: tuple[str, ...]) -> str:
    """A command of the library with other settings and options.

    ``release`` passes the settings after ``--`` on to the training. A model of two steps is no
    better than bilinear upscaling, which ``release`` refuses without ``--allow-unsound``.
    """
    words = shlex.split(line)
    assert words[:2] == ["python", "-m"], f"not a command of the library: {line}"
    settings = []
    for override in overrides:
        key, _, value = override.partition("=")
        if not key.startswith("--"):
            words = [word for word in words if word.split("=")[0] != key]
            settings.append(override)
        elif key in words:
            words[words.index(key) + 1] = value
    if words[2] == "pcsr_lightning.release":
        words += ["--allow-unsound", "--"]
    return shlex.join([*words, *settings])


def as_script(block: Block) -> str:
    """The commands of a shell block that are run."""
    lines = [line for line in block.text.splitlines() if line not in NOT_RUN]
    if block.overrides:
        lines = [with_overrides(line, block.overrides) for line in lines]
    return "\n".join(lines)


@pytest.fixture(scope="session")
def command_path() -> str:
    """A PATH whose ``python`` starts at once."""
    return f"{warm_folder()}{os.pathsep}{os.environ['PATH']}"


def furnish(folder: Path) -> None:
    """Creates the files that the pages name: a photograph, and folders of photographs."""
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
    """Runs a page's blocks in order in one folder; returns it and the output of each block."""

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
            report = f"{page}:\n{block.text}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
            assert done.returncode == 0, report
            printed.append(done.stdout)
        return folder, printed

    return run


@pytest.fixture
def run_script(command_path: str, tmp_path: Path) -> Callable[..., None]:
    """Runs a script of the repository and checks that it succeeds."""

    def run(*words: str | Path) -> None:
        environment = {**os.environ, "PATH": command_path, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            ["python", *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    return run


def command_of(block: Block, folder: Path) -> list[str] | None:
    """The command that runs a block; None for a block that is a file, which is written."""
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
