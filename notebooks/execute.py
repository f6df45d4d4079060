"""Runs notebooks and keeps their outputs: ``python notebooks/execute.py [FILE ...]``.

Without files, all in this folder. Each runs in an empty folder of its own. Left out is what a page
cannot show or what tells of the machine: widgets, the outputs of cells tagged ``live``, timings.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
WIDGET = "application/vnd.jupyter.widget-view+json"
SECONDS = 600
"""Longest a cell may take."""
HERE = Path(__file__).resolve().parent.parent
PLACES = [str(place) for place in (HERE, Path.home(), tempfile.gettempdir(), sys.prefix)]
"""What a path of this machine begins with."""


def execute(path: Path) -> None:
    """Runs a notebook and writes it back, outputs included.

    Raises:
        CellExecutionError: a cell failed.
        ValueError: an output holds a path of this machine.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            store_widget_state=False,
            record_timing=False,
            coalesce_streams=True,
        ).execute()
    notebook.metadata = nbformat.from_dict(KERNEL)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            tidy(cell)
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


def tidy(cell: NotebookNode) -> None:
    """Drops the outputs of a code cell that are not to be kept."""
    if "live" in cell.metadata.get("tags", []):
        cell.outputs = []
    for output in cell.outputs:
        data = output.get("data", {})
        data.pop(WIDGET, None)
        said = output.get("text", "") + str(data.get("text/plain", ""))
        if any(place in said for place in PLACES if place != "/"):
            raise ValueError(f"cell {cell.id}: its output holds a path of this machine")


if __name__ == "__main__":
    files = [Path(word) for word in sys.argv[1:]]
    for file in files or sorted(Path(__file__).parent.glob("*.ipynb")):
        print(file, flush=True)
        execute(file)
