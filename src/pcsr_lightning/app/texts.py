"""The page's texts about a run: HTML in which everything from outside is escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from pcsr_lightning.app.choices import BY_BUDGET, BY_K, BY_SECONDS, Choices
from pcsr_lightning.app.visitors import Visitor
from pcsr_lightning.app.work import bicubic_result, cost_percent, model_named, psnr
from pcsr_lightning.inference import all_heavy_flops, class_colours, output_size
from pcsr_lightning.weights import DEFAULT_MODEL, ModelDescription, scale_warning

MIB = 2**20
FILE_ROUTE = "gradio_api/file="
EMPTY = '<p class="pcsr-note">Drop a picture, or take one of the samples.</p>'


def colours(num_classes: int) -> list[str]:
    """The classes' colours as CSS has them, heaviest first."""
    rows = (class_colours(num_classes) * 255).round().int().tolist()
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in rows]


def class_names(num_classes: int) -> list[str]:
    """What classes are called, heaviest first."""
    between = [f"class {j}" for j in range(1, num_classes - 1)]
    return ["heavy", *between, "light"] if num_classes > 1 else ["heavy"]


def alert(message: str) -> str:
    """A message that something went wrong."""
    return f'<p class="pcsr-alert" role="alert">{escape(message)}</p>'


def note(message: str) -> str:
    """A message."""
    return f'<p class="pcsr-note" role="status">{escape(message)}</p>'


def model_label(model: ModelDescription) -> str:
    """A model's name and what it is best for, its scales, and its time beside the default's."""
    facts = [model.scales_text]
    if model.relative_time is not None and model.name != DEFAULT_MODEL:
        facts.append(f"{model.relative_time:.1f} times the default's time")
    return f"{model.name}: {model.best_for} ({', '.join(facts)})"


def describe_choices(choices: Choices) -> str:
    """The routing, in a few characters."""
    if choices.way == BY_K:
        return f"k = {choices.k:g}"
    if choices.way == BY_SECONDS:
        return f"{choices.seconds:g} s"
    return f"{choices.compute:g} %" if choices.way == BY_BUDGET else choices.way


def status(visitor: Visitor) -> str:
    """Which picture it is, or why another is not."""
    return picture_line(visitor) if visitor.refused is None else alert(visitor.refused)


def picture_line(visitor: Visitor) -> str:
    """Which picture is upscaled, and to what size."""
    loaded, run = visitor.loaded, visitor.run
    if loaded is None:
        return EMPTY
    (h, w), parts, after = loaded.size, [loaded.name], ""
    if run is not None and run.ticket == visitor.wanted:
        H, W = output_size(loaded.size, run.choices.scale)
        after = f" → {W} x {H} pixels"
    parts.append(f"{w} x {h}{after}")
    part = visitor.part
    if part is not None and part.bits > 8:
        parts.append(f"{part.bits} bit")
    if part is not None and part.alpha is not None:
        parts.append("transparent")
    if visitor.window is not None:
        parts.append("a part of it is shown")
    if run is not None and run.ticket == visitor.wanted and run.taken is not None:
        parts.append(run.taken)
    return note(" · ".join(parts))


def files_note(visitor: Visitor) -> str:
    """What can be made in the background, or has been."""
    job, count = visitor.job, len(visitor.sent)
    if job is None or job.result is None:
        if visitor.window is not None and count == 1:
            return note("The whole picture is made in the background. The page stays usable.")
        return note(f"{count} pictures, of which the first is shown; together they are a zip.")
    path = job.result
    href, size = escape(address(path), quote=True), path.stat().st_size
    link = f'<p><a class="pcsr-link" href="{href}" download="{escape(path.name, quote=True)}">'
    link += f"Save {escape(path.name)}</a> ({size / 1e6:.1f} MB)</p>"
    return link + "".join(alert(said) for said in job.failed)


def address(path: Path) -> str:
    """Where the browser finds a file of a visitor, seen from the page."""
    return FILE_ROUTE + quote(str(path))


def details(visitor: Visitor) -> str:
    """Cost, time, memory and PSNR of the last run beside the all-heavy run's."""
    run, session = visitor.run, visitor.session
    if run is None or session is None or visitor.first is None:
        return ""
    choices = run.choices
    model = model_named(choices.model)
    most = all_heavy_flops(model, session.lr_size, session.size).gmacs
    heavy, first = visitor.heavy, visitor.first
    share = cost_percent(run, session)
    cost = f"<b>{share:.0f} %</b> <small>{_gmacs(run.result.flops.gmacs)}</small>"
    seconds = "-" if heavy is None else _seconds(heavy.seconds)
    peak = "-" if heavy is None else _bytes(heavy.peak)
    rows = [
        ("Cost", "-", cost, f"100 % <small>{_gmacs(most)}</small>"),
        ("Time", "-", _seconds(first.seconds), seconds),
    ]
    if run.reused:
        part = f" <small>{100 * run.seconds / first.seconds:.0f} % of first</small>"
        rows.append(("Re-routed", "-", f"<b>{_seconds(run.seconds)}</b>{part}", "-"))
    rows.append(("Memory", "-", _bytes(first.peak), peak))
    compared, protocol = _psnr_row(visitor)
    remark = session.policy(choices.routing).note()
    foot = [
        scale_warning(model, choices.model, (choices.scale, choices.scale)),
        None if remark is None else remark[0].upper() + remark[1:] + ".",
        *protocol,
        "Memory is the peak beyond what was held before; this run's includes "
        f"{session.bytes / MIB:.0f} MiB that are kept for re-routing.",
        reference_problem(visitor),
    ]
    notes = "".join(f'<p class="pcsr-note">{escape(text)}</p>' for text in foot if text)
    return _share_bar(run.result.shares) + _table([*rows, *compared]) + notes


def reference_note(visitor: Visitor) -> str:
    """What the visitor's reference is compared with, or why it is not; empty if there is none."""
    if visitor.reference is None:
        return ""
    problem = reference_problem(visitor)
    return alert(problem) if problem else note(f"Compared with {visitor.reference[0]}.")


def reference_problem(visitor: Visitor) -> str:
    """Why the visitor's reference cannot be compared with; empty if it can."""
    if visitor.reference is None or visitor.session is None:
        return ""
    name, picture = visitor.reference
    (H, W), (h, w) = visitor.session.size, picture.shape[1:]
    if (h, w) == (H, W):
        return ""
    return (
        f"No PSNR: the reference {name} has {w} x {h} pixels, the result {W} x {H}. "
        "Give a reference of the result's size, or choose the scale that leads to it."
    )


def _psnr_row(visitor: Visitor) -> tuple[list[tuple[str, str, str, str]], list[str]]:
    reference = visitor.fitting_reference
    run, heavy = visitor.run, visitor.heavy
    if reference is None or run is None:
        return [], []
    scale = run.choices.scale
    ours = psnr(run.result.image[0], reference, scale)
    theirs = None if heavy is None else psnr(heavy.image_3HW, reference, scale)
    plain = psnr(bicubic_result(visitor), reference, scale)
    row = (
        "PSNR",
        _decibels(plain),
        f"<b>{_decibels(ours)}</b>",
        "-" if theirs is None else _decibels(theirs),
    )
    border = math.ceil(scale)
    return [row], [
        f"PSNR on RGB, both pictures rounded to 8 bit, {border} pixels of the border left out."
    ]


def _table(rows: Sequence[tuple[str, str, str, str]]) -> str:
    head = "<tr><td></td><th scope=col>bicubic</th><th scope=col>this run</th>"
    head += "<th scope=col>all-heavy</th></tr>"
    body = "".join(
        f"<tr><th scope=row>{name}</th>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
        for name, *cells in rows
    )
    return f'<table class="pcsr-facts"><thead>{head}</thead><tbody>{body}</tbody></table>'


def _share_bar(shares: Sequence[float]) -> str:
    """Which part of the pixels each class has."""
    M = len(shares)
    parts, legend = "", ""
    for share, colour, name in zip(shares, colours(M), class_names(M), strict=True):
        parts += f'<i style="width:{100 * share:.2f}%;background:{colour}"></i>'
        legend += f'<span><i style="background:{colour}"></i>{name} {100 * share:.0f} %</span>'
    return (
        f'<div class="pcsr-shares"><div class="pcsr-bar" aria-hidden="true">{parts}</div>'
        f'<div class="pcsr-legend">Pixels: {legend}</div></div>'
    )


def _gmacs(value: float) -> str:
    return f"{value:.3g} GMACs"


def _seconds(value: float) -> str:
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.1f} s"


def _bytes(value: int | None) -> str:
    return "not measured" if value is None else f"{value / MIB:.0f} MiB"


def _decibels(value: float) -> str:
    return "equal" if math.isinf(value) else f"{value:.2f} dB"
