"""The command ``pcsr``: its sub-commands, their help, what a training starts, completion."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.commands import SMALL_TRAINING, run_command

from pcsr_lightning.cli.main import COMMANDS, HYDRA_COMMANDS, main

SCRIPT = f"""#!{sys.executable}
import sys
from pcsr_lightning.cli.main import main
if __name__ == "__main__":
    sys.exit(main())
"""  # as pip writes it
HEAVY = "print([m for m in ('torch', 'numpy', 'lightning', 'hydra', 'rich') if m in sys.modules])"


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    """A folder that holds the installed script, to be put on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "pcsr").write_text(SCRIPT)
    (folder / "pcsr").chmod(0o755)
    return folder


def run(command: list[str], bin_folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=bin_folder.parent, env=env, capture_output=True, text=True, timeout=300
    )


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    for name, what in COMMANDS.items():
        assert f"  {name} " in text
        assert what in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["upscal", "photo.jpg"], "no command is called 'upscal'; did you mean upscale?"),
        (["zzz"], "no command is called 'zzz'; there are train, evaluate"),
        ([], "name a command: train"),
        (["--completion", "csh"], "invalid choice"),
    ],
)
def test_wrong_usage(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert says in capsys.readouterr().err


QUICK = [name for name in COMMANDS if name not in HYDRA_COMMANDS]
QUICK_HELP = f"""
import sys
from pcsr_lightning.cli.main import main
sys.argv[0] = '/usr/bin/pcsr'
for name in {QUICK}:
    try: main([name, '--help'])
    except SystemExit: pass
{HEAVY}
"""


def test_help_of_commands_is_quick() -> None:
    """It imports nothing heavy, and its usage line names what was typed."""
    done = subprocess.run([sys.executable, "-c", QUICK_HELP], capture_output=True, text=True)
    for name in QUICK:
        assert f"usage: pcsr {name} " in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_usage_of_a_module_names_the_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pcsr_lightning.convert", "--help"], capture_output=True, text=True
    )
    assert done.stdout.startswith("usage: python -m pcsr_lightning.convert ")
    assert done.stderr == ""


def test_exit_codes_are_the_command_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "nowhere.pth", "out"]) == 1
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["train", "thread=2"], 1, "error: thread: there is no such setting; did you mean threads"),
        (["evaluate", "--help"], 0, "pcsr evaluate model="),
    ],
)
def test_commands_of_hydra(words: list[str], code: int, says: str, tmp_path: Path) -> None:
    done = run_command(*words, cwd=tmp_path, code=code)
    assert says in (done.err if code else done.out)


@pytest.mark.slow
def test_a_training_in_two_processes(bin_folder: Path) -> None:
    """Lightning starts the second by the name of the main module, and Hydra composes again."""
    words = (
        *SMALL_TRAINING, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2",
        "data.batch_size=4", "data.val_limit=2", "trainer.max_steps=4", "hydra.run.dir=run",
    )  # fmt: skip
    done = run(["pcsr", "train", *words], bin_folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (bin_folder.parent / "run" / "model.safetensors").is_file()
    assert (done.stdout + done.stderr).count("trained 4 steps") == 1
    assert "MEMBER: 2/2" in done.stderr


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("pcsr up", {"upscale"}),
        ("pcsr upscale --bud", {"--budget"}),
        ("pcsr upscale --cost p", {"proportional"}),
        ("pcsr convert pho", {"photo.jpg"}),
        ("pcsr train stage=o", {"stage=original"}),
        ("pcsr train -m data", {"data.", "data"}),  # a group in which there is another
        ("pcsr train -m data=s", {"data=sample"}),
        ("pcsr evaluate target", {"target_psnr="}),
    ],
)
def test_completion_in_bash(line: str, expected: set[str], bin_folder: Path) -> None:
    pytest.importorskip("shtab", reason="needs shtab")
    (bin_folder.parent / "photo.jpg").touch()
    words = line.split()
    function = "complete -p pcsr | grep -o -- '-F [^ ]*' | cut -c4-"
    script = (
        f'eval "$(pcsr --completion bash)"; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}\n'
        f"COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; compopt() {{ :; }}\n"
        f"$({function}) pcsr {words[-1]} {words[-2]}\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = run(["bash", "-c", script], bin_folder)
    assert set(done.stdout.split()) == expected, done.stderr
