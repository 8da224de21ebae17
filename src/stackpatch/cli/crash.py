"""The log of an unexpected error: enough to find the mistake, nothing that must stay secret."""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from stackpatch import __version__, storage

if TYPE_CHECKING:
    from collections.abc import Sequence

# `https://user:password@host`, and options or settings whose name says that the value is secret.
_USER_INFO = re.compile(r"(?<=://)[^/@\s'\"]+(?=@)")
_SECRET = re.compile(
    r"(?i)([\w-]*(?:token|password|passwd|secret|api[-_]?key|authorization)[\w-]*['\"]?\s*[=: ]\s*)"
    r"(?:(?:basic|bearer)\s+)?['\"]?[^\s'\",]+"
)
_KEPT_LOGS = 20
_PACKAGES = ("typer", "pydantic", "pygit2", "pyyaml", "requests", "rich", "packaging")


def redact(text: str) -> str:
    """The text without credentials in URLs and without values of secret-looking names."""
    return _SECRET.sub(r"\1***", _USER_INFO.sub("***", text))


def summary(error: Exception) -> str:
    """One line: the type and the first line of the message, redacted."""
    said = str(error).strip().splitlines()
    return redact(f"{type(error).__name__}: {said[0][:300]}" if said else type(error).__name__)


def write_log(error: Exception, words: Sequence[str]) -> Path | None:
    """Write the log below the cache folder, else below the temporary one; None where neither can.

    words: argv without the program's name. Keeps the 20 newest logs.
    """
    text = redact(_report(error, words))
    name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}.log"
    for folder in (_folder(), Path(tempfile.gettempdir()) / f"stackpatch-logs-{os.getuid()}"):
        with suppress(Exception):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            storage.write_atomically(folder / name, text.encode("utf-8", "replace"), mode=0o600)
            _prune(folder)
            return folder / name
    return None


def _folder() -> Path:
    try:
        return storage.cache_root() / "logs"
    except RuntimeError:  # no home folder
        return Path(tempfile.gettempdir()) / f"stackpatch-logs-{os.getuid()}"


def _current_folder() -> str:
    try:
        return str(Path.cwd())
    except OSError as error:
        return str(error)


def _prune(folder: Path) -> None:
    for old in sorted(folder.glob("*.log"))[:-_KEPT_LOGS]:
        old.unlink(missing_ok=True)


def _report(error: Exception, words: Sequence[str]) -> str:
    versions = []
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions.append(f"{package} {metadata.version(package)}")
    return "\n".join(
        (
            f"stackpatch {__version__}",
            f"python {sys.version.split()[0]} on {platform.platform()}",
            f"packages: {', '.join(versions)}",
            f"argv: {' '.join(words)}",
            f"folder: {_current_folder()}",
            "",
            "".join(traceback.format_exception(error)),
        )
    )
