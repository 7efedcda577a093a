"""Which code the outputs of a notebook are those of."""

import hashlib
from typing import Any


def code_hash(cells: list[dict[str, Any]]) -> str:
    """Of the code of a notebook, as it stands in the file."""
    code = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return hashlib.sha256("\n\n".join(code).encode()).hexdigest()
