"""What every test gets: one fixed environment, no network in unit tests, real releases on request.

Real artefacts are kept below $STACKPATCH_TEST_CACHE (default: ~/.cache/stackpatch-tests of the
person who runs the tests), under their sha256, which is checked on every use.
"""

from __future__ import annotations

import hashlib
import html
import os
import re
import signal
import socket
import subprocess
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Before HOME is replaced: the person's own cache of test artefacts and pip's own settings.
TEST_CACHE = Path(
    os.environ.get("STACKPATCH_TEST_CACHE") or Path.home() / ".cache" / "stackpatch-tests"
)
_PIP_SETTINGS = next(
    (
        str(path)
        for path in (Path.home() / ".config/pip/pip.conf", Path.home() / ".pip/pip.conf")
        if path.is_file()
    ),
    None,
)
# Child processes on a busy machine take their time, and CI must see what a developer sees.
hypothesis.settings.register_profile(
    "stackpatch", deadline=None, max_examples=60, database=None, derandomize=True
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "stackpatch"))
_UNIT = Path(__file__).parent / "unit"
_KEPT = (
    "STACKPATCH_TEST_CACHE",
    "STACKPATCH_TEST_NVCC",
    "STACKPATCH_REQUIRE_ENGINE",
    "STACKPATCH_ENGINE_DIR",
    "STACKPATCH_ENGINE_MIRROR",
    "STACKPATCH_ENGINE_PORT",
)


@pytest.fixture(scope="session", autouse=True)
def _same_everywhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One home, locale, time zone and git configuration, whoever runs the tests and where."""
    before = dict(os.environ)
    ignored = _hear_signals()
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        ours = name.startswith(("STACKPATCH_", "FLASHINFER_", "SGLANG_", "TRITON_", "XDG_"))
        git = name.startswith("GIT_") and name != "GIT_SSL_CAINFO"
        shown = name in {"NO_COLOR", "FORCE_COLOR", "SOURCE_DATE_EPOCH", "PYTHONPATH", "COLUMNS"}
        if (ours or git or shown) and name not in _KEPT:
            del os.environ[name]
    os.environ.update(
        HOME=str(home),
        TZ="UTC",
        LC_ALL="C.UTF-8",
        TERM="dumb",
        GIT_CONFIG_GLOBAL=os.devnull,
        GIT_CONFIG_NOSYSTEM="1",
        GIT_TERMINAL_PROMPT="0",
        GIT_CEILING_DIRECTORIES=tempfile.gettempdir(),
        GIT_AUTHOR_NAME="Test",
        GIT_AUTHOR_EMAIL="test@example.invalid",
        GIT_COMMITTER_NAME="Test",
        GIT_COMMITTER_EMAIL="test@example.invalid",
        STACKPATCH_TEST_CACHE=str(TEST_CACHE),
        STACKPATCH_CACHE_DIR=str(home / "stackpatch-cache"),
    )
    if _PIP_SETTINGS and "PIP_CONFIG_FILE" not in os.environ:
        os.environ["PIP_CONFIG_FILE"] = _PIP_SETTINGS
    yield
    os.environ.clear()
    os.environ.update(before)
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


def _hear_signals() -> list[signal.Signals]:
    """Undo that SIGINT and SIGHUP are ignored, as `nohup make test &` has them; those that were.

    Programs inherit it, and one that is to end by Ctrl-C would go on until the test's time is over.
    """
    numbers = (signal.SIGINT, signal.SIGHUP)
    ignored = [number for number in numbers if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        usual = signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
        signal.signal(number, usual)
    return ignored


@pytest.fixture(autouse=True)
def _own_cache(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each test has a stackpatch cache of its own, which does not exist until it is written.

    Unit tests also see no package index settings and reach no other machine.
    """
    base = tmp_path_factory.getbasetemp()
    name = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]
    monkeypatch.setenv("STACKPATCH_CACHE_DIR", str(base / "caches" / name))
    if request.path.is_relative_to(_UNIT) and request.node.get_closest_marker("pypi") is None:
        for variable in [name for name in os.environ if name.startswith("PIP_")]:
            monkeypatch.delenv(variable)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "file")
        _forbid_network(monkeypatch)


def _forbid_network(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket.connect

    def connect(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else None
        if self.family != socket.AF_UNIX and host not in {"127.0.0.1", "::1", "localhost"}:
            pytest.fail(f"a unit test must not reach the network: {address!r}")
        real(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture(scope="session")
def artefact() -> Callable[[str, str], Path]:
    """`artefact(file name, sha256)` gives the path of a real file from the package index.

    Mark the test `pypi`. The distribution follows from the file name.
    """
    return fetch_artefact


def fetch_artefact(file: str, sha256: str) -> Path:
    """The file with this sha256, from the tests' cache or the package index."""
    target = TEST_CACHE / sha256 / file
    if target.is_file() and _sha256(target) == sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=target.parent)
    os.close(handle)
    try:
        with (
            urllib.request.urlopen(index_url(file), timeout=300) as answer,
            Path(scratch).open("wb") as out,
        ):
            while block := answer.read(1 << 20):
                out.write(block)
        found = _sha256(Path(scratch))
        assert found == sha256, f"{file} of the index has sha256 {found}, not {sha256}"
        Path(scratch).replace(target)
    finally:
        Path(scratch).unlink(missing_ok=True)
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def index_url(file: str) -> str:
    """Where the index has the file: pip's index-url, read from its simple page."""
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
    stem = file.partition("-")[0] if file.endswith(".whl") else file.rpartition("-")[0]
    page = f"{index}/{re.sub(r'[-_.]+', '-', stem).lower()}/"
    with urllib.request.urlopen(page, timeout=60) as answer:
        base, text = str(answer.url), answer.read().decode()
    for link in re.findall(r'href="([^"]+)"', text):
        url = urllib.parse.urljoin(base, html.unescape(link)).partition("#")[0]
        if urllib.parse.unquote(url.rsplit("/", 1)[-1]) == file:
            return url
    msg = f"{page} has no {file}"
    raise LookupError(msg)


def git(*argv: str, cwd: Path, stdin: bytes | None = None) -> str:
    """Run real git in a test repository; its stdout."""
    done = subprocess.run(["git", *argv], cwd=cwd, input=stdin, capture_output=True, check=True)
    return done.stdout.decode("utf-8", "surrogateescape")
