"""Programs that run where a stack is installed: here, behind ssh, in a container.

They are sent as text, run with the Python that is there (3.8 or newer) and need nothing but its
own library. Each answers with one line that begins with MARK; what a `sitecustomize` prints
besides is passed over. `receive` is the one that is started over ssh and starts the others.
"""

from __future__ import annotations

from importlib import resources

MARK = "stackpatch-answer:"


def source(name: str) -> bytes:
    """The program's text, such as `installed.py`."""
    return resources.files(__name__).joinpath(name).read_bytes()
