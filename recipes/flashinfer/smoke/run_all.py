"""Run check programs in order, each with a time limit, and write smoke.json.

    python run_all.py --arch sm121 --out smoke.json

Needs nothing but Python 3.8 or newer; `stackpatch smoke` runs this same file, here or on another
machine. A program that does not end in time is killed with everything that it started, also with
what made itself a session of its own. Exit status: 0 no check failed, 1 one did, 2 wrong usage.
A run in which nothing failed may still have shown little: read what did not run, and why.
"""

import argparse
import ctypes
import datetime
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time

# What this folder's stack is checked with, as its recipe says: the programs in their order, and for
# each arch the environment that its kernels are compiled in.
LIST = "checks.json"

STATUS = {0: "passed", 1: "failed", 77: "not-run"}
SMALLEST_LIMIT = 0.1
# How much of a program's standard error is kept when it ends without a result.
TAIL = 2000


def main():
    """Read the options, run the checks, write the result."""
    options = _options()
    listed = _listed(options)
    options.stack = options.stack or listed["stack"]
    options.environment = listed["env"].get(options.arch, {})
    checks = _chosen(options, listed["checks"])
    if options.out:  # a folder that cannot be written is known before an hour of checks
        _write(options.out, _document(options, []))
    adopt_orphans()
    done = []
    for name, program, limit in checks:
        result = run_one(options.python, program, options, limit, name)
        done.append(result)
        _say(result)
        if options.out:
            _write(options.out, _document(options, done))
        if options.stream:
            print(json.dumps(result), flush=True)
    print(summary(done), file=sys.stderr)
    return 1 if any(result["status"] == "failed" for result in done) else 0


def _options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", required=True)
    parser.add_argument("--out", help="file to write; after each check, so that a cut run is kept")
    parser.add_argument("--python", default=sys.executable, help="the Python that has the stack")
    parser.add_argument("--seed", type=int, help="of the random inputs; fresh without it")
    parser.add_argument(
        "--check",
        action="append",
        metavar="NAME=PROGRAM:SECONDS",
        help=f"a check to run instead of those in {LIST}; may repeat",
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="run this; may repeat")
    parser.add_argument("--skip", action="append", metavar="NAME", help="leave out; may repeat")
    parser.add_argument("--env", action="append", metavar="NAME=VALUE", help="for the programs")
    parser.add_argument("--stack", help=f"for smoke.json, instead of the one in {LIST}")
    parser.add_argument("--version", help="for smoke.json, and what must be imported")
    parser.add_argument("--subject", help="for smoke.json: wheel or image, by digest")
    parser.add_argument("--stream", action="store_true", help="print each result as a JSON line")
    return parser.parse_args()


def _listed(options):
    """The list beside this file; empty where checks are named. Leaves with status 2 without one."""
    if options.check:
        return {"stack": None, "checks": [], "env": {}}
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), LIST)
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        print(f"run_all.py: {path}: {error}; name checks with --check", file=sys.stderr)
        sys.exit(2)


def _chosen(options, listed):
    """The checks to run, as (name, program, limit). Leaves with status 2 for a wrong name."""
    checks = [(check["name"], check["program"], check["timeout"]) for check in listed]
    if options.check:
        checks = []
        for text in options.check:
            name, _, rest = text.partition("=")
            program, _, limit = rest.rpartition(":")
            try:
                seconds = float(limit)
            except ValueError:
                seconds = 0.0
            if not name or not program or seconds < SMALLEST_LIMIT:
                print(f"run_all.py: --check {text!r} is not NAME=PROGRAM:SECONDS", file=sys.stderr)
                sys.exit(2)
            checks.append((name, program, seconds))
    names = [name for name, _, _ in checks]
    for wanted in [*(options.only or ()), *(options.skip or ())]:
        if wanted not in names:
            print(f"run_all.py: no check {wanted!r}; there are {', '.join(names)}", file=sys.stderr)
            sys.exit(2)
    return [
        check
        for check in checks
        if (not options.only or check[0] in options.only) and check[0] not in (options.skip or ())
    ]


def run_one(python, program, options, limit, name):
    """Run one program: {name, status, why, figures, seconds, timeout}."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), program)
    started = time.monotonic()
    result = {"name": name, "status": "failed", "why": "", "figures": {}}
    if not os.path.isfile(path):
        result["why"] = f"there is no program {program} beside run_all.py"
        return _timed(result, started, limit)
    argv = [python, path, "--arch", options.arch]
    if options.seed is not None:
        argv += ["--seed", str(options.seed)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=_environment(options),
                start_new_session=True,
            )
        except OSError as error:
            result["why"] = f"{python} cannot be run: {error.strerror or error}"
            return _timed(result, started, limit)
        ended = True
        try:
            child.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            ended = False
        finally:  # also when we are interrupted
            kill_all(child)
        out.seek(0)
        err.seek(0)
        said = out.read().decode("utf-8", "replace")
        errors = err.read().decode("utf-8", "replace")
    if not ended:
        result["why"] = f"did not end within {limit:g} s; killed with everything that it started"
        _with_tail(result, errors)
        return _timed(result, started, limit)
    _judge(result, child.returncode, said, errors)
    return _timed(result, started, limit)


def _judge(result, status, said, errors):
    """What a program that ended says of itself; a status that belies its words is a failure."""
    lines = [line for line in said.splitlines() if line.strip()]
    try:
        told = json.loads(lines[-1])
        word, why, figures = told["status"], str(told["why"]), dict(told["figures"])
    except (IndexError, ValueError, KeyError, TypeError):
        word = None
    if word is None:
        if status < 0:
            name = signal.Signals(-status).name if -status in list(signal.Signals) else -status
            why = f"ended by signal {name} before it gave a result"
            if -status == signal.SIGKILL:
                why += "; the system kills so when memory runs out"
        else:
            why = f"ended with status {status} and gave no result"
        result["why"] = why
        _with_tail(result, errors)
    elif STATUS.get(status) != word:
        result["why"] = f"says {word!r} but ended with status {status}: {why}"
        result["figures"] = figures
    else:
        result.update(status=word, why=why, figures=figures)
        if word == "failed":
            _with_tail(result, errors)


def _with_tail(result, errors):
    tail = errors.strip()[-TAIL:]
    if tail:
        result["stderr"] = tail


def _timed(result, started, limit):
    result["seconds"] = round(time.monotonic() - started, 3)
    result["timeout"] = limit
    return result


def _environment(options):
    env = dict(os.environ)
    env.update(options.environment)
    for text in options.env or ():
        name, _, value = text.partition("=")
        env[name] = value
    if options.version:
        env["SMOKE_VERSION"] = options.version
    env.pop("PYTHONSAFEPATH", None)  # a program finds _check.py beside itself
    env["PYTHONDONTWRITEBYTECODE"] = "1"  # the recipe's folder stays as it is
    return env


# --- nothing outlives its check -----------------------------------------------------------------


def adopt_orphans():
    """Make what loses its parent a child of ours (Linux), so that `kill_all` finds it."""
    try:
        ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    except (OSError, AttributeError):
        pass  # another system: the process group is still killed


def kill_all(child):
    """Kill a program's process group, then every other descendant of ours, until none is left."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    child.wait()
    for _ in range(1000):
        left = _descendants()
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        for pid in left:
            try:
                os.waitpid(pid, os.WNOHANG)
            except (ChildProcessError, OSError):
                pass
        time.sleep(0.01)


def _descendants():
    """Process ids below ours, from /proc; those that ended and wait for us to ask included."""
    children = {}
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                # the name may hold blanks and brackets; the parent is the second field after it
                parent = int(file.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        children.setdefault(parent, []).append(pid)
    found, todo = [], [os.getpid()]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


# --- what is told -------------------------------------------------------------------------------


def _document(options, done):
    device = next((r["figures"] for r in done if r["name"] == "device"), {})
    return {
        "schema": "stackpatch.smoke/1",
        "stack": options.stack,
        "version": options.version,
        "arch": options.arch,
        "subject": options.subject,
        "device": device or None,
        "host": {
            "machine": platform.machine(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "made": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "summary": summary(done),
        "checks": done,
    }


def _write(path, document):
    """The whole file or none."""
    path = os.path.abspath(path)
    handle, partial = tempfile.mkstemp(prefix=".smoke-", dir=os.path.dirname(path))
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2, ensure_ascii=False)
            file.write("\n")
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise


def summary(done):
    """`3 passed, 0 failed, 8 not run: no GPU (5), sm90 has no FP4 instructions (2), …`."""
    counts = {word: [r for r in done if r["status"] == word] for word in STATUS.values()}
    text = "{} passed, {} failed, {} not run".format(*(len(counts[w]) for w in STATUS.values()))
    if counts["not-run"]:
        whys = {}
        for result in counts["not-run"]:
            whys.setdefault(result["why"], []).append(result["name"])
        text += ": " + "; ".join(f"{', '.join(names)}: {why}" for why, names in whys.items())
    return text


def _say(result):
    figures = result["seconds"]
    print(
        f"{result['status']:8} {result['name']:22} {figures:8.1f} s  {result['why']}",
        file=sys.stderr,
        flush=True,
    )


def _stop(number, frame):
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGHUP, _stop)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("run_all.py: interrupted; what ran is in the file", file=sys.stderr)
        sys.exit(130)
