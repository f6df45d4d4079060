"""A ``python`` that starts at once: a server that has imported what takes long, and forks.

    python warm_python.py SOCKET FOLDER

listens at SOCKET and writes the commands ``python`` and ``torchrun`` into FOLDER. With FOLDER first
on PATH they run like the real ones, each in a process of its own with its own folder, environment
and streams; only the seconds of importing PyTorch and Lightning are not spent again.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    asked = json.dumps([{first!r} + sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(asked).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(asked)
    answer = server.recv(4)
    sys.exit(int.from_bytes(answer, "big", signed=True) if answer else 70)
"""


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
    import pcsr_lightning.releasing
    import pcsr_lightning.stages
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
            client, _ = server.accept()
            if os.fork():  # the server; the next process in between waits for the command
                client.close()
                continue
            server.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return answer(client)


def answer(client: socket.socket) -> list[str]:
    """Waits for the command in one process, and goes on as the command in another."""
    size, streams, _, _ = socket.recv_fds(client, 4, 3)
    asked = b""
    while len(asked) < int.from_bytes(size, "big"):
        asked += client.recv(1 << 16)
    arguments, folder, environment = json.loads(asked)
    command = os.fork()
    if command:
        _, status = os.waitpid(command, 0)
        client.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))
        os._exit(0)
    client.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    return list(arguments)


def become(arguments: list[str], python: str) -> None:
    """What ``python ARGUMENTS`` does."""
    sys.executable = python  # what it starts is warm as well
    first, *rest = arguments
    if first == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif first == "-m":
        sys.argv, sys.path[0] = rest, str(Path.cwd())
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        while first == "-u":  # torchrun's
            first, *rest = rest
        if first in ("-c", "-m"):
            return become([first, *rest], python)
        sys.argv, sys.path[0] = [first, *rest], str(Path(first).parent)
        runpy.run_path(first, run_name="__main__")
    return None


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
