"""The other end of ssh: take programs from standard input, run one, leave nothing.

The first line is JSON: {"files": {name: base64}, "argv": [name, ...], "env": {...}, "limit": s}.
Standard input then stays open. When it ends, because the caller did or the connection is gone, the
program is told to stop (run_all.py kills its check and all that it started), then killed; the same
happens after `limit` seconds. The status is the program's, 124 when it ran out of time.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

PATIENCE = 20


def main() -> int:
    job = json.loads(sys.stdin.buffer.readline() or b"null")
    if job is None:
        return 2
    folder = tempfile.mkdtemp(prefix="stackpatch-")
    try:
        for name, content in job["files"].items():
            with open(os.path.join(folder, os.path.basename(name)), "wb") as file:
                file.write(base64.b64decode(content))
        name, *rest = job["argv"]
        child = subprocess.Popen(
            [sys.executable, "-I", os.path.join(folder, name), *rest],
            stdin=subprocess.DEVNULL,
            env={**os.environ, **job["env"]},
            start_new_session=True,
        )
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: child.terminate())
        threading.Thread(target=watch, args=(child,), daemon=True).start()
        try:
            status = child.wait(job["limit"])
        except subprocess.TimeoutExpired:
            stop(child)
            status = 124
        kill_group(child)
        return status if status >= 0 else 128 - status
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def watch(child: subprocess.Popen[bytes]) -> None:
    """Stop the program when the caller is gone."""
    while os.read(0, 1 << 16):
        pass
    stop(child)


def stop(child: subprocess.Popen[bytes]) -> None:
    """Tell it to stop, and give it time to kill what it started in sessions of their own."""
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(PATIENCE)
    kill_group(child)


def kill_group(child: subprocess.Popen[bytes]) -> None:
    """Kill what is left of it; a process that holds our output open keeps the caller waiting."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # the watching thread still reads
