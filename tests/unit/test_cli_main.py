"""The program's entry: every way a run can end, its exit status, and what stdout holds then."""

from __future__ import annotations

import ast
import errno
import json
import os
import re
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import pytest
import typer

from stackpatch.cli import commands, main, output
from stackpatch.cli.context import JsonOption, RootOption
from stackpatch.errors import (
    EnvironmentProblem,
    FindingError,
    InputError,
    Problems,
    StackpatchError,
    WaitingError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

CLI = Path(main.__file__).parent


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Put a command `probe` into the program that runs the given function."""

    def install(body: Callable[[], None]) -> None:
        module = types.ModuleType("stackpatch.cli.probe")

        def command(
            *,
            count: Annotated[int, typer.Option()] = 0,
            json: JsonOption = False,
            root: RootOption = None,
        ) -> None:
            """Probe."""
            body()
            output.emit("probe", {"count": count}, f"count {count}", json=json)

        # The annotations are strings here; typer looks their names up in this module.
        module.command = command  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "stackpatch.cli.probe", module)
        monkeypatch.setattr(commands, "TABLE", {**commands.TABLE, "probe": "Probe."})

    return install


def raising(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The one document on stdout; fails when there is anything beside it."""
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def run(*words: str, code: str = "", **options: Any) -> subprocess.CompletedProcess[bytes]:
    """The program in a process of its own."""
    argv = [sys.executable, "-m", "stackpatch", *words]
    if code:
        argv = [sys.executable, "-c", code, *words]
    options.setdefault("capture_output", True)
    return subprocess.run(argv, timeout=60, **options)


# A program with a command `probe` whose body is given as source.
PROBE = """
import sys, types, os, time
from stackpatch.cli import commands, main, output
from stackpatch.cli.context import JsonOption, RootOption
module = types.ModuleType("stackpatch.cli.probe")
def command(*, json: JsonOption = False, root: RootOption = None) -> None:
    "Probe."
{body}
module.command = command
sys.modules["stackpatch.cli.probe"] = module
commands.TABLE = {{**commands.TABLE, "probe": "Probe."}}
sys.exit(main.main())
"""


def probe_code(*lines: str) -> str:
    return PROBE.format(body="\n".join(f"    {line}" for line in lines))


# The table


def defined(path: Path) -> set[str]:
    """The names of functions and variables at the top of a module, read without importing it."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def test_every_command_has_its_module_and_every_module_with_a_command_is_in_the_table() -> None:
    files = {p.stem for p in CLI.glob("*.py") if {"command", "app"} & defined(p)} - {"commands"}
    # `import` is a word of Python: its module is `import_`.
    assert {name.removesuffix("_") for name in files} == set(commands.TABLE)


@pytest.mark.parametrize("name", sorted(commands.TABLE))
def test_summary_in_the_table_is_the_commands_own_first_line(name: str) -> None:
    found = commands.load(name)
    assert (found.help or "").strip().splitlines()[0] == commands.TABLE[name]


@pytest.mark.parametrize("name", sorted(commands.TABLE))
def test_every_command_takes_json_and_root_and_only_those_spellings(name: str) -> None:
    def leaves(command: Any) -> list[Any]:
        below = getattr(command, "commands", None)
        return [leaf for c in below.values() for leaf in leaves(c)] if below else [command]

    for leaf in leaves(commands.load(name)):
        options = {opt: p for p in leaf.params for opt in p.opts}
        assert "--json" in options, leaf.name
        assert "--root" in options, leaf.name
        assert options["--root"].help == commands_root_help(), leaf.name
        assert all(p.help for p in leaf.params if p.param_type_name == "option"), leaf.name


def commands_root_help() -> str:
    return str(get_args(RootOption)[1].help)


def test_help_lists_the_table_and_imports_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    before = {name for name in sys.modules if name.startswith("stackpatch.cli.")}
    assert main.main(["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, summary in commands.TABLE.items():
        assert f"{name} {summary}" in shown
    assert {name for name in sys.modules if name.startswith("stackpatch.cli.")} == before


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--version"]])
def test_start_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys, contextlib, io\n"
        "from stackpatch.cli.main import main\n"
        "with contextlib.redirect_stdout(io.StringIO()): main()\n"
        "print(*sorted(sys.modules))"
    )
    loaded = run(*words, code=code).stdout.decode().split()
    heavy = {
        "docker",
        "git",
        "packaging",
        "pydantic",
        "pygit2",
        "requests",
        "rich",
        "tree_sitter",
        "urllib3",
        "yaml",
    }
    assert "stackpatch.cli.main" in loaded
    assert heavy.isdisjoint(loaded)
    ours = {name for name in loaded if name.startswith("stackpatch.")}
    rooms = {"artefacts", "checks", "installed", "model", "registry", "series", "sources"}
    assert rooms.isdisjoint(name.split(".")[1] for name in ours)


def test_nothing_but_the_command_line_imports_rich_or_reads_argv() -> None:
    for path in CLI.parent.rglob("*.py"):
        # The agents are programs that Pythons elsewhere run alone.
        if path.is_relative_to(CLI) or path.name == "__main__.py" or path.parent.name == "agents":
            continue
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            named = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            named += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in named:
                assert name.split(".")[0] not in {"rich", "typer"}, path
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in {("sys", "argv"), ("sys", "exit")}, path


def test_help_shows_arguments_as_they_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["build", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Usage: stackpatch build [OPTIONS] STACK[@RELEASE]\n" in shown
    assert "\n  STACK[@RELEASE]  " in shown


# Exit statuses


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (FindingError("f"), 1, "finding"),
        (InputError("i"), 2, "input"),
        (Problems("p", ("a:1: x", "b:2: y")), 2, "input"),
        (EnvironmentProblem("e"), 3, "environment"),
        (WaitingError("w"), 4, "waiting"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("r"), 3, "internal"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 3, "environment"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 3, "environment"),
        (MemoryError(), 3, "environment"),
        (typer.Exit(4), 4, None),
        (typer.Abort(), 130, "interrupted"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_every_end_has_its_status_and_one_document(
    probe: Callable[[Callable[[], None]], None],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    kind: str | None,
    as_json: bool,
) -> None:
    probe(raising(error))
    assert main.main(["probe", "--json"] if as_json else ["probe"]) == status
    shown = capsys.readouterr()
    if kind is None:
        assert shown.out == ""
    elif as_json:
        found = json.loads(shown.out)
        assert found["schema"] == "stackpatch.probe/1"
        assert found["error"]["kind"] == kind
        assert set(found["error"]) >= {"kind", "message", "hint", "where"}
    else:
        assert shown.out == ""
        assert shown.err.startswith("error: ")
    assert "Traceback" not in shown.out + shown.err


def test_done_is_zero_and_the_document_has_the_schema(
    probe: Callable[[Callable[[], None]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    probe(lambda: None)
    assert main.main(["probe", "--count", "3", "--json"]) == 0
    assert document(capsys) == {"schema": "stackpatch.probe/1", "count": 3}
    assert main.main(["probe", "--count", "3"]) == 0
    assert capsys.readouterr().out == "count 3\n"


def test_message_where_and_hint_are_told_once_in_this_order(
    probe: Callable[[Callable[[], None]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    probe(raising(InputError("no such arch: sm122", where="recipes/x.yaml:7", hint="try sm121")))
    assert main.main(["probe"]) == 2
    assert capsys.readouterr().err == (
        "error: no such arch: sm122\n  where: recipes/x.yaml:7\n  hint: try sm121\n"
    )


def test_problems_are_listed_one_a_line_and_in_the_document(
    probe: Callable[[Callable[[], None]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ("a.yaml:1: tag: missing", "b.yaml:2: arch: unknown")
    probe(raising(Problems("2 problems in the recipes", lines)))
    assert main.main(["probe", "--json"]) == 2
    shown = capsys.readouterr()
    assert json.loads(shown.out)["error"]["problems"] == list(lines)
    assert shown.err.splitlines() == ["error: 2 problems in the recipes", *lines]


# Usage


@pytest.mark.parametrize(
    ("words", "said", "name"),
    [
        ([], "missing command", "error"),
        (["nonsense"], "no such command: nonsense", "error"),
        (["lisst"], "did you mean list or lint?", "error"),
        (["probe", "--cuont", "1"], "--cuont", "probe"),
        (["probe", "--count", "many"], "valid integer", "probe"),
        (["probe", "--count"], "--count", "probe"),
        (["probe", "surplus"], "surplus", "probe"),
        (["--frobnicate"], "--frobnicate", "error"),
    ],
)
def test_wrong_usage_is_status_2_and_one_document(
    probe: Callable[[Callable[[], None]], None],
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
    name: str,
) -> None:
    probe(lambda: None)
    assert main.main(words) == 2
    people = capsys.readouterr()
    assert people.out == ""
    assert said in people.err
    assert "--help` shows what it takes" in people.err
    assert main.main([*words, "--json"] if words else ["--json"]) == 2
    found = document(capsys)
    assert found["schema"] == f"stackpatch.{name}/1"
    assert found["error"]["kind"] == "input"


def test_json_after_two_dashes_belongs_to_somebody_else() -> None:
    assert main.wants_json(["bisect", "--json", "--", "run"])
    assert not main.wants_json(["bisect", "--", "run", "--json"])
    assert not main.wants_json(["build", "--json-file"])


def test_a_broken_command_module_is_an_internal_error_of_that_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "TABLE", {"missing_module": "Nothing."})
    assert main.main(["missing_module", "--json"]) == 3
    found = document(capsys)
    assert found["schema"] == "stackpatch.missing_module/1"
    assert found["error"]["kind"] == "internal"


def test_a_subcommand_has_a_schema_of_its_own_when_it_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stackpatch.cli.context import subcommands

    module = types.ModuleType("stackpatch.cli.pair", "Pair.")
    app = subcommands()

    @app.command("one")
    def one(*, json: JsonOption = False) -> None:
        """One."""
        msg = "no"
        raise FindingError(msg)

    @app.command("two")
    def two(*, json: JsonOption = False) -> None:
        """Two."""

    module.app = app  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stackpatch.cli.pair", module)
    monkeypatch.setattr(commands, "TABLE", {"pair": "Pair."})
    assert main.main(["pair", "one", "--json"]) == 1
    assert document(capsys)["schema"] == "stackpatch.pair-one/1"
    assert main.main(["pair", "three", "--json"]) == 2
    assert document(capsys)["schema"] == "stackpatch.pair/1"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from stackpatch import __version__

    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == f"stackpatch {__version__}\n"


# Unexpected errors


def test_an_unexpected_error_leaves_a_log_without_secrets(
    probe: Callable[[Callable[[], None]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    probe(raising(RuntimeError("cannot reach https://joe:hunter2@example.org/x\nsecond line")))
    words = ["probe", "--json", "--root", "https://joe:hunter3@example.org/"]
    assert main.main(words) == 3
    shown = capsys.readouterr()
    error = json.loads(shown.out)["error"]
    log = Path(error["where"])
    assert log.is_relative_to(os.environ["STACKPATCH_CACHE_DIR"])
    assert log.stat().st_mode & 0o077 == 0
    text = log.read_text("utf-8")
    assert "Traceback (most recent call last)" in text
    assert "RuntimeError" in text
    assert "argv: probe --json --root" in text
    assert "stackpatch " in text
    assert "second line" in text
    assert str(log) in shown.err
    for secret in ("hunter2", "hunter3"):
        assert secret not in text + shown.out + shown.err
    assert "second line" not in shown.err


def test_where_no_log_can_be_written_the_error_is_still_told(
    probe: Callable[[Callable[[], None]], None],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    monkeypatch.setenv("STACKPATCH_CACHE_DIR", str(blocked))
    monkeypatch.setattr("tempfile.tempdir", str(blocked))
    probe(raising(ZeroDivisionError("division by zero")))
    assert main.main(["probe", "--json"]) == 3
    error = document(capsys)["error"]
    assert error["where"] is None
    assert "ZeroDivisionError: division by zero" in error["message"]


def test_only_the_newest_logs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stackpatch.cli import crash

    monkeypatch.setenv("STACKPATCH_CACHE_DIR", str(tmp_path))
    (tmp_path / "logs").mkdir()
    for number in range(30):
        (tmp_path / "logs" / f"20200101T0000{number:02}Z-1.log").write_text("old")
    log = crash.write_log(ValueError("x"), [])
    assert log is not None
    kept = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert len(kept) == 20
    assert kept[-1] == log.name


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("https://user:s3cr3t@host/path", "s3cr3t"),
        ("oauth2:https://s3cr3t@host", "s3cr3t"),
        ("--password s3cr3t", "s3cr3t"),
        ("--token=s3cr3t", "s3cr3t"),
        ("{'api_key': 's3cr3t'}", "s3cr3t"),
        ("Authorization: Bearer s3cr3t", "s3cr3t"),
        ("Authorization: Basic s3cr3t", "s3cr3t"),
        ("HF_TOKEN=s3cr3t run", "s3cr3t"),
    ],
)
def test_redaction(text: str, secret: str) -> None:
    from stackpatch.cli import crash

    assert secret not in crash.redact(text)


def test_redaction_leaves_ordinary_text() -> None:
    from stackpatch.cli import crash

    text = "fetch https://pypi.org/simple/x/ to a@b, line 12 in f\nKeyError: 'sm121'"
    assert crash.redact(text) == text


# Streams and signals, in a process of their own


def test_a_reader_that_went_away_is_no_failure() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = probe_code("output.emit('probe', {'x': 'y' * 100000}, 'y' * 100000, json=json)")
    for words in (["probe"], ["probe", "--json"], ["--help"]):
        done = run(*words, code=code, stdout=writer, stderr=subprocess.PIPE, capture_output=False)
        assert (done.returncode, done.stderr) == (0, b""), words
    os.close(writer)


def test_a_finding_keeps_its_status_when_the_reader_went_away() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = probe_code(
        "from stackpatch.errors import FindingError",
        "output.emit('probe', {}, 'text', json=json, failure=FindingError('drift'))",
    )
    done = run("probe", code=code, stdout=writer, stderr=subprocess.PIPE, capture_output=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"error: drift\n")


def test_a_full_disk_behind_stdout_is_told() -> None:
    code = probe_code("output.emit('probe', {}, 'text', json=json)")
    for words in (["probe"], ["probe", "--json"], ["--help"]):
        with Path("/dev/full").open("wb") as full:
            done = run(*words, code=code, stdout=full, stderr=subprocess.PIPE, capture_output=False)
        assert done.returncode == 3
        assert b"No space left on device" in done.stderr
        assert b"Traceback" not in done.stderr
        assert b"Exception ignored" not in done.stderr


def test_closed_streams_do_not_bring_the_program_down() -> None:
    code = probe_code("output.note('n')", "output.emit('probe', {}, 'text', json=json)")
    done = subprocess.run(
        ["/bin/sh", "-c", '"$0" -c "$1" probe >&- 2>&-', sys.executable, code], timeout=60
    )
    assert done.returncode == 3  # the result was asked for and went nowhere
    done = subprocess.run(
        ["/bin/sh", "-c", '"$0" -c "$1" probe 2>&-', sys.executable, code],
        timeout=60,
        stdout=subprocess.PIPE,
    )
    assert (done.returncode, done.stdout) == (0, b"text\n")


def test_a_failure_that_stdout_cannot_take_keeps_its_status() -> None:
    for sink in (">&-", ">/dev/full"):
        done = subprocess.run(
            ["/bin/sh", "-c", f'"$0" -m stackpatch nonsense --json {sink}', sys.executable],
            timeout=60,
            stderr=subprocess.PIPE,
        )
        assert done.returncode == 2
        assert b"no such command: nonsense" in done.stderr
        assert b"cannot write the result" in done.stderr
        assert b"Traceback" not in done.stderr


def test_an_unexpected_error_in_a_folder_that_is_gone_still_leaves_its_log(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = probe_code("os.rmdir(os.getcwd())", "raise RuntimeError('x')")
    done = run("probe", code=code, cwd=gone)
    assert done.returncode == 3
    assert b"unexpected error: RuntimeError: x" in done.stderr
    log = re.search(rb"where: (.+)", done.stderr)
    assert log is not None
    assert "RuntimeError: x" in Path(os.fsdecode(log[1])).read_text("utf-8")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_run_the_cleanup_and_end_with_130(number: signal.Signals, tmp_path: Path) -> None:
    code = probe_code(
        "try:",
        "    print('ready', file=sys.stderr, flush=True)",
        "    time.sleep(60)",
        "finally:",
        f"    open({str(tmp_path / 'cleaned')!r}, 'w').close()",
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "probe", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == b"ready\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert json.loads(out)["error"]["kind"] == "interrupted"
    assert b"Traceback" not in err
    assert (tmp_path / "cleaned").exists()


def test_a_signal_that_the_parent_ignores_stays_ignored() -> None:
    code = probe_code(
        "import signal",
        "os.kill(os.getpid(), signal.SIGHUP)",
        "output.emit('probe', {}, 'survived', json=json)",
    )
    done = subprocess.run(
        ["/bin/sh", "-c", 'trap "" HUP; exec "$0" -c "$1" probe', sys.executable, code],
        timeout=60,
        capture_output=True,
    )
    assert (done.returncode, done.stdout) == (0, b"survived\n")


def test_an_interruption_before_or_after_the_command_is_130_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("_run", "_settle"):
        with monkeypatch.context() as patch:
            patch.setattr(main, name, lambda *_: raising(KeyboardInterrupt())())
            assert main.main(["--version"]) == 130
    capsys.readouterr()


def test_main_leaves_the_callers_signal_handlers(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    main.main(["--version"])
    assert signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().out


def test_every_error_class_has_a_distinct_kind_and_a_status_of_the_contract() -> None:
    def below(cls: type[StackpatchError]) -> list[type[StackpatchError]]:
        return [cls, *(c for s in cls.__subclasses__() for c in below(s))]

    statuses: dict[str, int] = {}
    for cls in below(StackpatchError):
        assert cls.exit_status in {1, 2, 3, 4, 130}
        assert statuses.setdefault(cls.kind, cls.exit_status) == cls.exit_status
