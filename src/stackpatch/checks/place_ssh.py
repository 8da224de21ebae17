"""A stack on another machine, reached by ssh. Programs are streamed there; nothing stays.

OpenSSH's own client is used with the user's settings, keys and known hosts. It asks nothing
(`BatchMode`): a host whose key is not known yet is refused, and its key is never taken over here.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shlex
import subprocess
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackpatch.checks.agents import source
from stackpatch.checks.code import DamagedError
from stackpatch.checks.members import Unread
from stackpatch.checks.places import Job, run_until
from stackpatch.checks.tars import tar_members
from stackpatch.checks.window import skip_by_reading
from stackpatch.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import IO

    from stackpatch.checks.members import Found
    from stackpatch.proc import Completed

SCHEME = "ssh://"
_URL = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z0-9_.][A-Za-z0-9_.-]*)@)?"
    r"(?P<host>[A-Za-z0-9_.][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?"
    r"(?P<path>/[^\x00-\x1f]+)"
)
# Seconds: for the connection, and for the far end to stop what runs there.
_CONNECT = 20
_GRACE = 60.0
_PACKING = 3600.0
_OPTIONS = (
    *("-T", "-a", "-x"),
    *("-o", "BatchMode=yes"),
    *("-o", f"ConnectTimeout={_CONNECT}"),
    *("-o", "ServerAliveInterval=15"),
    *("-o", "ClearAllForwardings=yes"),
    *("-o", "PermitLocalCommand=no"),
    *("-o", "RemoteCommand=none"),
)


@dataclass(frozen=True, slots=True)
class Behind:
    """An interpreter behind ssh. path: absolute, there. config: instead of ~/.ssh/config."""

    host: str
    path: str
    user: str | None = None
    port: int | None = None
    config: Path | None = None

    @classmethod
    def parse(cls, url: str, config: Path | None = None) -> Behind:
        """`ssh://[user@]host[:port]/path/to/python`. Raises InputError."""
        found = _URL.fullmatch(url)
        port = int(found["port"]) if found and found["port"] else None
        if found is None or (port is not None and not 0 < port < 65536):
            msg = f"--python {url}: is not ssh://[user@]host[:port]/path/to/python"
            raise InputError(msg, hint="such as ssh://me@spark/home/me/venv/bin/python")
        if config is not None and not config.is_file():
            msg = f"--ssh-config {config}: there is no such file"
            raise InputError(msg)
        return cls(found["host"].strip("[]"), found["path"], found["user"], port, config)

    @property
    def python(self) -> str:
        """Its path there."""
        return self.path

    def run(self, job: Job) -> Completed:
        """Stream the job there and run it. When we end, so does it."""
        done = run_until(self._argv(), job.limit + _GRACE, given=_line(job))
        self._check(done.status, done.error_text())
        return done

    def members(self, folder: str) -> Iterator[Found]:
        """The files of a folder there, as a tar that is read while it comes and never stored."""
        job = Job({"pack.py": source("pack.py")}, ("pack.py", folder), _PACKING)
        with tempfile.TemporaryFile() as errors:
            child = subprocess.Popen(
                self._argv(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )
            assert child.stdin is not None  # noqa: S101 - by PIPE above, for mypy
            assert child.stdout is not None  # noqa: S101
            try:
                with contextlib.suppress(BrokenPipeError):
                    child.stdin.write(_line(job))
                    child.stdin.flush()
                yield from tar_members(Stream(child.stdout))
                status = child.wait(timeout=_GRACE)
            finally:
                with contextlib.suppress(BrokenPipeError):
                    child.stdin.close()
                child.stdout.close()
                if child.poll() is None:
                    child.kill()
                child.wait()
            errors.seek(0)
            said = errors.read().decode("utf-8", "replace").strip()
        self._check(status, said)
        for line in said.splitlines():
            path, mark, why = line.partition(": ")
            yield Unread(path, why if mark else "said by pack.py")

    def document(self) -> dict[str, object]:
        """Host and path; no user name."""
        return {"kind": "ssh", "host": self.host, "python": self.path}

    def _argv(self) -> list[str]:
        words = ["ssh", *(("-F", str(self.config)) if self.config else ()), *_OPTIONS]
        words += ["-p", str(self.port)] if self.port else []
        words += ["-l", self.user] if self.user else []
        # Quoted for whatever shell the user has there: no quote, blank or `$` inside.
        program = base64.b64encode(source("receive.py")).decode("ascii")
        boot = f'exec(__import__("base64").b64decode("{program}"))'
        return [*words, "--", self.host, f"{shlex.quote(self.path)} -I -c '{boot}'"]

    def _check(self, status: int, said: str) -> None:
        """ssh's own failure, or a Python that is not there. Raises EnvironmentProblem."""
        last = said.splitlines()[-1] if said else f"status {status}"
        if status == 255:
            msg = f"ssh {self.host}: {last}"
            hint = f"`ssh {self.host} true` must work without a question"
            if "Host key verification failed" in said:
                hint = f"connect once by hand and compare the key: `ssh {self.host}`"
            raise EnvironmentProblem(msg, hint=hint)
        if status in (126, 127):
            msg = f"{self.path} cannot be run on {self.host}: {last}"
            raise InputError(msg, hint="name the Python that has the stack there")
        if status == 124:
            msg = f"{self.path} on {self.host} did not end in time and was stopped"
            raise EnvironmentProblem(msg)


def _line(job: Job) -> bytes:
    files = {name: base64.b64encode(data).decode("ascii") for name, data in job.files.items()}
    whole = {"files": files, "argv": job.argv, "env": dict(job.env), "limit": job.limit}
    return json.dumps(whole).encode() + b"\n"


class Stream:
    """A pipe as a source of the audit."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe

    def read(self, size: int) -> bytes:
        """Up to `size` bytes."""
        try:
            return self._pipe.read(size)
        except OSError as error:
            msg = f"cannot be read: {error.strerror}"
            raise DamagedError(msg) from error

    def skip(self, size: int) -> int:
        """Read and drop."""
        return skip_by_reading(self.read, size)
