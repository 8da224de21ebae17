"""`python -m stackpatch`: the same program, where the script is not on PATH."""

from __future__ import annotations

import sys

from stackpatch.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
