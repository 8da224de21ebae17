"""Where to look for packages: pip's own settings, read as `pip download` reads them.

Files in pip's order (global, user, site, $PIP_CONFIG_FILE), each later one winning by key, then
PIP_* variables; sections [global], [install], [download]. Facts: pip's user guide,
"Configuration", and pip 25's `pip config debug`, read 2026-11-21.
"""

from __future__ import annotations

import configparser
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stackpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PYPI = "https://pypi.org/simple"
_SECTIONS = ("global", "install", "download")
_TRUE = {"1", "true", "yes", "on", "y", "t"}


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """What pip is told about indexes.

    indexes: base URLs of simple indexes, the main one first; they may hold credentials, so never
    show them unredacted. find_links: folders, or URLs of pages with links. trusted_hosts: `host`
    or `host:port` whose certificate is not checked. certificate: CA bundle. client_certificate:
    PEM file. timeout: seconds. retries: how often a request is repeated.
    """

    indexes: tuple[str, ...] = (PYPI,)
    find_links: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()
    certificate: str | None = None
    client_certificate: str | None = None
    proxy: str | None = None
    timeout: float = 15.0
    retries: int = 5


def read_settings(
    environ: Mapping[str, str] | None = None, *, system: Path = Path("/")
) -> IndexSettings:
    """The settings of this user on this machine.

    environ: the process's environment. system: where `etc` is. Raises InputError for a file that
    cannot be parsed or a number that is none, naming it.
    """
    environment = os.environ if environ is None else environ
    values: dict[str, tuple[str, str]] = {}  # key: value, where it was said
    for path in _files(environment, system):
        values.update(_read_file(path))
    for name, value in environment.items():
        if name.startswith("PIP_") and value:
            values[_key(name.removeprefix("PIP_"))] = (value, f"${name}")
    # pip knows --default-timeout as another spelling of --timeout.
    values.setdefault("timeout", values.get("default-timeout", ("15", "")))
    indexes = (*_words(values, "index-url")[:1], *_words(values, "extra-index-url"))
    if "index-url" not in values:
        indexes = (PYPI, *indexes)
    if values.get("no-index", ("", ""))[0].lower() in _TRUE:
        indexes = ()
    return IndexSettings(
        indexes=tuple(dict.fromkeys(index.rstrip("/") for index in indexes)),
        find_links=_words(values, "find-links"),
        trusted_hosts=_words(values, "trusted-host"),
        certificate=_one(values, "cert"),
        client_certificate=_one(values, "client-cert"),
        proxy=_one(values, "proxy"),
        timeout=_number(values, "timeout", 15.0),
        retries=int(_number(values, "retries", 5)),
    )


def _files(environ: Mapping[str, str], system: Path) -> Iterator[Path]:
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return
    for folder in environ.get("XDG_CONFIG_DIRS", "").split(":"):
        if folder:
            yield Path(folder) / "pip" / "pip.conf"
    if not environ.get("XDG_CONFIG_DIRS"):
        yield system / "etc/xdg/pip/pip.conf"
    yield system / "etc/pip.conf"
    named_exists = bool(named) and Path(str(named)).exists()
    home = environ.get("HOME")
    if home and not named_exists:  # as pip does: a named file stands for the user's
        yield Path(home) / ".pip" / "pip.conf"
        yield Path(environ.get("XDG_CONFIG_HOME") or Path(home) / ".config") / "pip" / "pip.conf"
    yield Path(sys.prefix) / "pip.conf"
    if named:
        yield Path(named)


def _read_file(path: Path) -> dict[str, tuple[str, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:  # absent, a folder, or not ours to read: pip goes on, too
        return {}
    except UnicodeDecodeError as error:
        msg = f"pip's configuration is not UTF-8 text: {error.reason} at byte {error.start}"
        raise InputError(msg, where=str(path)) from error
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text, source=str(path))
    except configparser.Error as error:
        msg = f"pip's configuration cannot be read: {' '.join(str(error).split())}"
        raise InputError(msg, hint="`pip config debug` shows the files", where=str(path)) from error
    return {
        _key(name): (value, str(path))
        for section in _SECTIONS
        if parser.has_section(section)
        for name, value in parser.items(section)
        if value
    }


def _key(name: str) -> str:
    return name.lower().replace("_", "-").removeprefix("--")


def _words(values: Mapping[str, tuple[str, str]], key: str) -> tuple[str, ...]:
    return tuple(values[key][0].split()) if key in values else ()


def _one(values: Mapping[str, tuple[str, str]], key: str) -> str | None:
    return values[key][0].strip() if key in values else None


def _number(values: Mapping[str, tuple[str, str]], key: str, default: float) -> float:
    if key not in values:
        return default
    value, where = values[key]
    try:
        number = float(value)
    except ValueError as error:
        msg = f"pip's {key} is not a number: {value!r}"
        raise InputError(msg, where=where or None) from error
    if not 0 <= number < float("inf"):
        msg = f"pip's {key} is out of range: {value!r}"
        raise InputError(msg, where=where or None)
    return number
