"""Execute notebooks in place: ``python notebooks/run.py NOTEBOOK...``

What the cells print is shown while they run. An error stops the run, with a non-zero status, and
leaves the file as it was. Only what can be reproduced is stored: no times, no progress bars, no
version of the interpreter; and a hash of the code that ran, which tells outputs of other code apart.
"""

import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from provenance import code_hash

# Small decompositions, on cores that other programs share: there the threads of LAPACK wait for one another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

LONGEST = 180  # seconds that a notebook may take on two cores


class LiveClient(NotebookClient):
    """A client that passes the output streams of the notebook on to the terminal."""

    def process_message(self, msg, cell, cell_index):
        if msg["msg_type"] == "stream":
            stream = getattr(sys, msg["content"]["name"])
            stream.write(msg["content"]["text"])
            stream.flush()
        return super().process_message(msg, cell, cell_index)


def announce(notebook, cell_index):
    """Print which cell starts, by its number and the heading above it."""
    before = notebook.cells[: cell_index + 1]
    number = sum(c.cell_type == "code" for c in before)
    total = sum(c.cell_type == "code" for c in notebook.cells)
    lines = [line for c in before if c.cell_type == "markdown" for line in c.source.splitlines()]
    headings = [line.lstrip("# ") for line in lines if line.startswith("#")]
    print(f"[{number}/{total}] {headings[-1] if headings else ''}", flush=True)


def stored(notebook):
    """Drop from the executed notebook what changes from run to run."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "executed": code_hash(notebook.cells),
    }
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    return notebook


def run(path):
    start = time.time()
    print(path, flush=True)
    notebook = nbformat.read(path, as_version=4)
    client = LiveClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": path.parent}},
        on_cell_execute=lambda cell, cell_index: cell.cell_type == "code" and announce(notebook, cell_index),
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )
    client.execute()
    nbformat.write(stored(notebook), path)
    for figure in sorted((path.parent / "figures").glob(f"{path.stem}*.png")):
        print(f"figure: {figure}")
    took = time.time() - start
    print(f"{path}: executed in {took:.0f} s" + (f", longer than {LONGEST}" if took > LONGEST else ""), flush=True)


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit(__doc__)
    for name in sys.argv[1:]:
        run(Path(name))
