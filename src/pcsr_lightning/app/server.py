"""Serves the demo page until Ctrl-C or SIGTERM."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from pcsr_lightning.errors import ConfigError, exit_at_once_on_signal, raise_if_interrupted

HOST, PORT = "127.0.0.1", 7860
PORTS_TRIED = 20
MAX_PIXELS = 10**9
"""50 million pixels at x4 fit in: 630 MB of memory, 10 minutes on one thread, a PNG of 1.1 GB."""
SWEEP_SECONDS = 60.0
UPLOAD_BYTES = 2**28
MOST_VISITORS = 64
MOST_WAITING = 64


def check_installed() -> None:
    """Refuses to start without the extra.

    Raises:
        ConfigError: Gradio is not installed.
    """
    if find_spec("gradio") is None:
        raise ConfigError(
            "the demo page needs gradio, which is not installed; in the checkout: "
            "pip install -e '.[demo]'"
        )


def serve(
    host: str,
    port: int | None,
    folder: Path,
    model: str | None = None,
    max_pixels: int = MAX_PIXELS,
    threads: int | None = None,
) -> None:
    """Runs the page.

    Args:
        host: address to listen on.
        port: the first free one from :data:`PORT` up if not given.
        folder: for uploads and results; nothing else is written but the times of models that
            ``seconds`` goes by, in the cache.
        model: that is chosen at first, a name or a file.
        max_pixels: that a result may have.
        threads: of torch.

    Raises:
        PCSRError: the model cannot be used.
        OSError: the address cannot be listened on.
    """
    # Before Gradio is imported: it reads these then.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")
    port = free_port(host, port)
    with exit_at_once_on_signal():
        import torch

        from pcsr_lightning.app.work import model_named
        from pcsr_lightning.weights import DEFAULT_MODEL
    if threads is not None:
        torch.set_num_threads(threads)
    model_named(model or DEFAULT_MODEL)
    with exit_at_once_on_signal():
        from pcsr_lightning.app import look
        from pcsr_lightning.app.handlers import Handlers
        from pcsr_lightning.app.page import build
        from pcsr_lightning.app.visitors import Visitors
    labels, model = offered_models(model)
    visitors = Visitors(folder / "results")
    page = build(Handlers(visitors, max_pixels, tuple(labels)), labels, model, folder / "samples")
    page.queue(default_concurrency_limit=1, max_size=MOST_WAITING)
    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        inbrowser=False,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        footer_links=[],
        allowed_paths=[str(folder / "results"), str(folder / "samples")],
        max_file_size=UPLOAD_BYTES,
        state_session_capacity=MOST_VISITORS,
        theme=look.theme(),
        css=look.text("page.css"),
    )
    address = f"[{host}]" if ":" in host else host
    print(f"http://{address}:{port}/  (Ctrl-C ends it)", flush=True)
    try:
        wait(visitors.sweep)
    finally:
        page.close(verbose=False)


def offered_models(model: str | None) -> tuple[dict[str, str], str]:
    """The models to choose from, with what they are called, and the one that is chosen at first.

    Args:
        model: that was named; otherwise the choice is left to the picture, where there is one.
    """
    from pcsr_lightning.app import texts
    from pcsr_lightning.app.choices import AUTOMATIC
    from pcsr_lightning.weights import DEFAULT_MODEL, describe_models, photo_counterpart

    offered = [about for about in describe_models() if about.has_classes]
    labels = {about.name: texts.model_label(about) for about in offered}
    if model is not None and model not in labels:
        labels = {model: model, **labels}
    photo = photo_counterpart(DEFAULT_MODEL)
    if photo is None:
        return labels, model or DEFAULT_MODEL
    text = f"{AUTOMATIC}: {DEFAULT_MODEL} or {photo}, by the picture"
    return {AUTOMATIC: text, **labels}, model or AUTOMATIC


def wait(sweep: Callable[[], None]) -> None:
    """Sleeps for good, but for a sweep now and then; a signal's exception ends it."""
    never = threading.Event()
    while True:
        never.wait(SWEEP_SECONDS)
        raise_if_interrupted()
        sweep()


def free_port(host: str, wanted: int | None) -> int:
    """A port that can be listened on.

    Raises:
        ConfigError: the one that is wanted is taken, or no such address is this machine's.
    """
    tried = [wanted] if wanted is not None else list(range(PORT, PORT + PORTS_TRIED))
    problem: OSError | None = None
    for port in tried:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
                return port
        except OSError as error:
            problem = error
    assert problem is not None
    where = f"port {wanted}" if wanted is not None else f"ports {PORT} to {tried[-1]}"
    raise ConfigError(
        f"cannot listen on {host}, {where} ({problem.strerror}): give another --host or --port"
    )
