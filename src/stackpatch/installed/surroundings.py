"""What upstream's path rules look at: the environment, the home folder, what is installed."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from stackpatch.errors import EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

# From this release on SGLang points the caches of others below its own
# (srt/environ.py, third_party_cache_defaults; absent in 0.5.17).
SGLANG_MOVES_CACHES = Version("0.5.18")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What upstream's path rules look at.

    home: the home folder as Python finds it. user: the account's name, for rules that ask for it
    after the environment. temporary: what `tempfile.gettempdir()` gives. versions: what an
    interpreter has installed, by import package (`flashinfer`, `sglang`); None: not asked.
    """

    environ: Mapping[str, str]
    home: Path
    user: str
    temporary: Path
    versions: Mapping[str, str] | None = field(default=None)

    def get(self, name: str) -> str | None:
        """A variable as `os.environ.get` gives it: the empty string is a value."""
        return self.environ.get(name)

    def filled(self, name: str) -> str | None:
        """A variable for the rules that treat empty like unset."""
        return self.environ.get(name) or None

    def expand(self, text: str) -> Path:
        """`~` and `~/x` as `os.path.expanduser` does it for this home folder."""
        if text == "~" or text.startswith("~/"):
            return Path(str(self.home) + text[1:])
        return Path(text)

    def sglang_moves_caches(self) -> bool | None:
        """Whether SGLang puts the caches of others below its own; None: not known."""
        if self.versions is None:
            return None
        installed = self.versions.get("sglang")
        if installed is None:
            return False
        try:
            return Version(installed) >= SGLANG_MOVES_CACHES
        except InvalidVersion:
            return None


def surroundings(
    environ: Mapping[str, str] | None = None, versions: Mapping[str, str] | None = None
) -> Surroundings:
    """Those of this process and user. Raises EnvironmentProblem when there is no home folder."""
    env = dict(os.environ if environ is None else environ)
    try:
        account = pwd.getpwuid(os.getuid())
    except KeyError:  # a container's arbitrary user id has no entry
        account = None
    named = env.get("HOME")
    if named is None and account is None:
        msg = f"user id {os.getuid()} has no home folder and HOME is not set"
        raise EnvironmentProblem(msg, hint="set HOME, so that the caches below it can be found")
    home = Path((named if named is not None else account.pw_dir if account else "") or "/")
    return Surroundings(
        environ=env,
        home=home,
        user=account.pw_name if account else "",
        temporary=_temporary(env),
        versions=versions,
    )


def login_name(around: Surroundings) -> str:
    """As `getpass.getuser`: LOGNAME, USER, LNAME, USERNAME, then the account."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        if found := around.filled(name):
            return found
    return around.user


def _temporary(env: Mapping[str, str]) -> Path:
    """As `tempfile.gettempdir()`, for an environment that need not be ours."""
    candidates = [env.get(name) for name in ("TMPDIR", "TEMP", "TMP")]
    for candidate in (*candidates, "/tmp", "/var/tmp", "/usr/tmp"):  # noqa: S108 - the rule itself
        if candidate and Path(candidate).is_dir() and os.access(candidate, os.W_OK | os.X_OK):
            return Path(candidate).absolute()
    return Path.cwd()
