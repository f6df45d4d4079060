"""A ``python`` that starts at once: a server that has imported what takes long, and forks.

    from tests.warm_python import warm_python

    subprocess.run([warm_python(), "-m", "pcsr_lightning.evaluate", ...])

:func:`warm_python` starts the server (this file as a script) once in each process of tests. It
writes the commands ``python`` and ``torchrun``, which run like the real ones: each in a process of
its own with its own folder, environment, streams and other open files; signals reach it, and its
end is the command's. Only the seconds of importing PyTorch and Lightning are not spent again.
"""

import atexit
import fcntl
import functools
import gc
import json
import multiprocessing
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

CLIENT = """#!{python} -IS
import json, os, signal, socket, sys
given = [int(n) for n in os.listdir("/proc/self/fd")]
given = [n for n in given if n > 2 and os.path.exists(f"/proc/self/fd/{{n}}")]
given = [0, 1, 2, *(n for n in given if os.get_inheritable(n))]
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    asked = json.dumps([{first!r} + sys.argv[1:], os.getcwd(), dict(os.environ), given]).encode()
    socket.send_fds(server, [len(asked).to_bytes(4, "big")], given)
    for number in given[3:]:
        os.close(number)  # the command alone holds them now
    server.sendall(asked)
    command = int.from_bytes(server.recv(4), "big")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, frame: os.kill(command, number))
    server.settimeout(0.1)  # a signal that came just before waiting is handled only after it
    answer = None
    while answer is None:
        try:
            answer = server.recv(4)
        except TimeoutError:
            pass
code = int.from_bytes(answer, "big", signed=True) if answer else 70
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@functools.cache
def warm_folder() -> Path:
    """The folder of the commands, to be put first on PATH; the server ends with this process."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    server = subprocess.Popen(
        [sys.executable, __file__, folder / "socket", folder],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    _kept.append(server)
    return folder


_kept: list["subprocess.Popen[str]"] = []
"""Whose stdin, once closed, ends the server."""


def warm_python() -> str:
    """The path of the command; the ordinary interpreter's where processes cannot be handed on."""
    if not sys.platform.startswith("linux"):
        return sys.executable
    return str(warm_folder() / "python")


def preload() -> None:
    """All but the commands themselves: those must be imported as ``__main__``."""
    import hydra.main  # noqa: F401
    import lightning.pytorch  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import torch.distributed.run  # noqa: F401

    import pcsr_lightning.batch
    import pcsr_lightning.data
    import pcsr_lightning.evaluation
    import pcsr_lightning.inference
    import pcsr_lightning.release
    import pcsr_lightning.training
    import pcsr_lightning.weights  # noqa: F401


def write_clients(folder: Path, address: str) -> None:
    """The commands that the server stands behind."""
    for name, first in {"python": [], "torchrun": ["-m", "torch.distributed.run"]}.items():
        command = folder / name
        command.write_text(CLIENT.format(python=sys.executable, address=address, first=first))
        command.chmod(0o755)


def serve(address: str) -> list[str]:
    """Forks for each connection; returns in the children only, with their arguments."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        print("ready", flush=True)
        while True:
            if server not in select.select([server, sys.stdin], [], [])[0]:
                shutil.rmtree(Path(address).parent)
                sys.exit()  # whoever started this has ended
            client, _ = server.accept()
            if os.fork():  # the server; the next process in between waits for the command
                client.close()
                continue
            server.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return answer(client)


def answer(client: socket.socket) -> list[str]:
    """Waits for the command in one process, and goes on as the command in another."""
    size, files, _, _ = socket.recv_fds(client, 4, 64)
    asked = b""
    while len(asked) < int.from_bytes(size, "big"):
        asked += client.recv(1 << 16)
    arguments, folder, environment, numbers = json.loads(asked)
    command = os.fork()
    if command:
        for file in files:
            os.close(file)
        await_end(command, client)
    client.close()
    put_at(files, numbers)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    return list(arguments)


def await_end(command: int, client: socket.socket) -> NoReturn:
    """Tells the client how the command ended; a client that was killed takes it along."""
    with suppress(BrokenPipeError):  # the client has been killed, which shows at once below
        client.sendall(command.to_bytes(4, "big"))
    if client in select.select([client, os.pidfd_open(command)], [], [])[0]:
        os.kill(command, signal.SIGKILL)
    _, status = os.waitpid(command, 0)
    try:
        client.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))
    finally:
        os._exit(0)


def put_at(files: list[int], numbers: list[int]) -> None:
    """Gives open files the numbers that they have in the client."""
    aside = [fcntl.fcntl(file, fcntl.F_DUPFD, 500) for file in files]
    for file in files:
        os.close(file)
    for file, number in zip(aside, numbers, strict=True):
        os.dup2(file, number)
        os.close(file)


def become(arguments: list[str], python: str) -> None:
    """What ``python ARGUMENTS`` does."""
    sys.executable = python  # what it starts is warm as well
    multiprocessing.set_executable(python)
    os.environ["PYTHON_EXEC"] = python  # torchrun's word for it
    added = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[1:1] = [path for path in added if path not in sys.path]
    first, *rest = arguments
    while first.startswith("-") and first not in ("-c", "-m"):  # torchrun's -u, and the like
        first, *rest = rest[1:] if first == "-X" else rest
    if first == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif first == "-m":
        sys.argv, sys.path[0] = rest, str(Path.cwd())
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = [first, *rest], str(Path(first).parent)
        runpy.run_path(first, run_name="__main__")


def end(command: Callable[[], None]) -> NoReturn:
    """Runs a command and ends the process; to take apart what was imported would take long."""
    code: object = 0
    try:
        command()
    except SystemExit as asked:
        code = asked.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def main() -> None:
    """The server, and in the end each command."""
    address, folder = sys.argv[1], Path(sys.argv[2])
    preload()
    write_clients(folder, address)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    gc.collect()
    gc.freeze()  # so that collecting garbage does not copy all that is shared with the server
    arguments = serve(address)
    end(lambda: become(arguments, str(folder / "python")))


if __name__ == "__main__":
    main()
