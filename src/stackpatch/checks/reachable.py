"""Whether the package index that pip is set to answers, shown without credentials."""

from __future__ import annotations

import configparser
import os
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from urllib.request import url2pathname

from stackpatch.checks.doctor import Finding, Level

_NAME = "package index"
_DEFAULT = "https://pypi.org/simple"


def package_index(timeout: float) -> Finding:
    """Ask the index for one project that every index has. timeout: seconds."""
    url, source = index_setting()
    shown = without_credentials(url)
    detail = f"{shown} ({source})"
    parts = urlsplit(url)
    if parts.scheme in {"", "file"}:
        folder = Path(url2pathname(parts.path)) if parts.scheme else Path(url)
        if folder.is_dir():
            return Finding(
                _NAME, Level.OK, found=True, good_for="fetch from a folder", detail=detail
            )
        return _unreachable(detail, "there is no such folder")
    if parts.scheme not in {"http", "https"}:
        return _unreachable(detail, f"the scheme {parts.scheme} is not one that we speak")
    return _ask(url, detail, timeout)


def _ask(url: str, detail: str, timeout: float) -> Finding:
    import requests

    settings = pip_settings()
    verify = settings.get("cert") or True
    try:
        with requests.get(
            f"{url.rstrip('/')}/pip/", timeout=(timeout, timeout), stream=True, verify=verify
        ) as answer:
            status = answer.status_code
    except (requests.RequestException, OSError) as error:
        return _unreachable(detail, _short(error))
    if status in {401, 403, 407}:
        return _unreachable(detail, f"it refuses access (status {status})")
    if status >= 500:
        return _unreachable(detail, f"it fails (status {status})")
    if status >= 400:
        return Finding(
            _NAME,
            Level.LIMITED,
            found=True,
            good_for="fetch, where it has the stack's releases",
            detail=f"{detail}; it has no project pip (status {status})",
        )
    return Finding(_NAME, Level.OK, found=True, good_for="fetch", detail=detail)


def _unreachable(detail: str, why: str) -> Finding:
    return Finding(
        _NAME,
        Level.UNUSABLE,
        good_for="no fetch from the index; what is in the source store still builds",
        detail=f"{detail}: {why}",
        advice="check pip's index settings (`pip config list`), the proxy and the certificates",
    )


def _short(error: Exception) -> str:
    """The innermost reason, without URLs: they may carry credentials."""
    inner: BaseException = error
    while (deeper := inner.__cause__ or inner.__context__) is not None and deeper is not inner:
        inner = deeper
    said = re.sub(r"\S+://\S+", "…", str(inner)) or type(inner).__name__
    return re.sub(r"<[^>]*>:? *", "", said)[:200]


def index_setting() -> tuple[str, str]:
    """The index URL that pip would use, and where that is set."""
    named = os.environ.get("PIP_INDEX_URL")
    if named:
        return named, "PIP_INDEX_URL"
    found = pip_settings().get("index-url")
    return (found, "pip's configuration") if found else (_DEFAULT, "default")


def pip_settings() -> dict[str, str]:
    """pip's settings from its files and variables: later ones win, as in pip."""
    found: dict[str, str] = {}
    for path in _files():
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (OSError, configparser.Error, UnicodeDecodeError):
            continue
        for section in ("global", "download", "install"):
            if parser.has_section(section):
                found.update(
                    (key.lower().replace("_", "-"), value) for key, value in parser.items(section)
                )
    for key in ("cert", "index-url"):
        value = os.environ.get("PIP_" + key.upper().replace("-", "_"))
        if value:
            found[key] = value
    return found


def _files() -> list[Path]:
    """pip's configuration files in their order; PIP_CONFIG_FILE=/dev/null switches them off."""
    named = os.environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return []
    config = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    files = [
        *(Path(base) / "pip/pip.conf" for base in reversed(_system_folders())),
        Path("/etc/pip.conf"),
        Path.home() / ".pip/pip.conf",
        Path(config) / "pip/pip.conf",
        Path(sys.prefix) / "pip.conf",
    ]
    return [*files, Path(named)] if named else files


def _system_folders() -> list[str]:
    return (os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")


def without_credentials(url: str) -> str:
    """The URL without user, password, query and fragment."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
