"""Runs the commands and snippets of the documentation, as a reader would.

The comment ``<!-- in the tests: KEY=VALUE --OPTION=VALUE ... -->`` above a block replaces settings
and options of its commands, so that they take seconds. Settings that a command lacks are added.
"""

import doctest
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.commands import Done, in_process, run_command, trainings_in_process
from tests.small import compact_state

from pcsr_lightning.data import SAMPLE_FOLDER

DOCS = Path(__file__).parents[2] / "docs"
SHELL = ("bash", "sh")
COMPACT = "compact.pth"
"""On the pages, a checkpoint of Real-ESRGAN's compact network; the tests make one."""
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
    if words[2] == "pcsr_lightning.train":
        settings.append("data.val_limit=1")
    if words[2] == "pcsr_lightning.release":
        words += ["--allow-unsound", "--"]
    return shlex.join([*words, *settings])


def commands_of(block: Block) -> list[str]:
    """The commands of a shell block that are run."""
    lines = block.text.replace("\\\n", " ").splitlines()
    lines = [line for line in lines if line not in NOT_RUN]
    return [with_overrides(line, block.overrides) if block.overrides else line for line in lines]


def furnish(folder: Path, large: bool) -> None:
    """Creates the files that the pages name: a photograph, and folders of photographs."""
    photo = Image.open(SAMPLE_FOLDER / "valid" / "chelsea.png").convert("RGB")
    photo.resize((96, 64)).save(folder / "photo.jpg", quality=95)
    photo.resize((64, 48)).save(folder / "photo.png")
    (folder / "photos" / "more").mkdir(parents=True)
    photo.resize((96, 64)).save(folder / "photos" / "a.png")
    photo.resize((64, 64)).save(folder / "photos" / "more" / "b.png")
    (folder / "Set14").mkdir()
    astronaut = Image.open(SAMPLE_FOLDER / "train" / "astronaut.png")
    if not large:
        astronaut = astronaut.crop((128, 0, 320, 192))
    astronaut.save(folder / "Set14" / "astronaut.png")
    torch.save({"params": compact_state()}, folder / COMPACT)
    (folder / "pictures").mkdir()
    for number in range(10):
        left, top = 30 * number, 15 * number
        crop = photo.crop((left, top, left + 160, top + 144))
        crop.save(folder / "pictures" / f"{number}.png")


RunPage = Callable[[str], tuple[Path, list[str]]]


@pytest.fixture(scope="session")
def run_page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunPage:
    """Runs a page's blocks in order in one folder; returns it and the output of each block."""

    def run(page: str) -> tuple[Path, list[str]]:
        folder = tmp_path_factory.mktemp("reader")
        text = (DOCS / page).read_text(encoding="utf-8")
        # patches of the paper's protocol need 512 x 512 pixels
        furnish(folder, large=any("protocol=patches" in b.text for b in blocks_of(page)))
        for name in set(re.findall(r"[\w-]+\.pth", text)) - {COMPACT}:
            shared: Path = request.getfixturevalue("shared")
            shutil.copy(shared / "reference" / name, folder)
        printed = []
        for block in blocks_of(page):
            if is_file(block, folder) or block.kind not in (*SHELL, "python", "pycon"):
                continue
            with trainings_in_process():
                done = run_block(block, folder)
            report = f"{page}:\n{block.text}\n{done.out[-3000:]}{done.err[-3000:]}"
            assert done.code == 0, report
            printed.append(done.out)
        return folder, printed

    return run


def is_file(block: Block, folder: Path) -> bool:
    """Whether a block is a file that begins with its name; it is written then."""
    named = re.match(r"# (\S+\.(?:py|yaml))\n", block.text)
    if named:
        path = folder / named[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
    return named is not None


def run_block(block: Block, folder: Path) -> Done:
    """Runs a block: commands of the library and Python in this process, all else in a shell."""
    env = {
        "XDG_CACHE_HOME": str(folder / "cache"),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "160",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    if block.kind == "python":
        code = compile(block.text, "<page>", "exec")
        return in_process(lambda: exec(code, {"__name__": "__main__"}), folder, env)
    if block.kind == "pycon":
        return in_process(lambda: failures(block.text), folder, env)
    all_done = []
    for line in commands_of(block):
        words = shlex.split(line)
        if words[:2] == ["python", "-m"] and not {"|", ">", "<"} & set(words):
            done = run_command(
                words[2].removeprefix("pcsr_lightning."), *words[3:], cwd=folder, env=env
            )
        else:
            shell = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", line], cwd=folder, env=os.environ | env,
                capture_output=True, text=True, timeout=300,
            )  # fmt: skip
            done = Done(shell.returncode, shell.stdout, shell.stderr)
        all_done.append(done)
        if done.code:
            break
    code = all_done[-1].code if all_done else 0
    return Done(code, "".join(d.out for d in all_done), "".join(d.err for d in all_done))


def failures(session: str) -> int:
    """Runs an interactive session; returns how many of its examples printed something else."""
    test = doctest.DocTestParser().get_doctest(session, {}, "session", None, None)
    return doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., None]:
    """Runs a script of the repository and checks that it succeeds."""

    def run(*words: str | Path) -> None:
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    return run
