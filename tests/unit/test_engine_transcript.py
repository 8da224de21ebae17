"""What engines print: the step that failed, what it said, and secrets taken out of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackpatch.artefacts.engines.redact import Redactor
from stackpatch.artefacts.engines.transcript import (
    BuildahTranscript,
    BuildKitTranscript,
    Transcript,
    explain,
    interesting,
)
from stackpatch.errors import EnvironmentProblem, FindingError, InputError, StackpatchError

LOG = Path("/somewhere/build.log")

# As BuildKit 0.13 printed it; the second step was cancelled because of the first.
FAILED = """\
#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 120B done
#1 DONE 0.0s
#5 [wheel 2/3] RUN make all
#6 [image 2/2] RUN sleep 10
#5 0.412 cc -o a a.c
#5 0.518 a.c:3: error: no such thing
#6 CANCELED
#5 ERROR: process "/bin/sh -c make all" did not complete successfully: exit code: 2
------
 > [wheel 2/3] RUN make all:
0.518 a.c:3: error: no such thing
------
ERROR: failed to solve: process "/bin/sh -c make all" did not complete successfully: exit code: 2
"""


def told(transcript: Transcript, text: str, status: int, engine: str = "buildx") -> StackpatchError:
    for line in text.splitlines():
        transcript.feed(line)
    return explain(transcript, status, engine, LOG)


def test_a_failing_step_is_named_with_what_it_said() -> None:
    error = told(BuildKitTranscript(), FAILED, 1)
    assert isinstance(error, FindingError)
    assert "[wheel 2/3] RUN make all" in error.message
    assert "status 2" in error.message
    assert "a.c:3: error: no such thing" in error.message
    assert str(LOG) in str(error.hint)


def test_a_step_of_buildah_is_named_with_what_it_said() -> None:
    text = (
        "STEP 1/3: FROM x\nSTEP 2/3: COPY a /a\nSTEP 3/3: RUN make all\ncc -o a a.c\n"
        "a.c:3: no such thing\n"
        'Error: building at STEP "RUN make all": exit status 2\n'
    )
    error = told(BuildahTranscript(), text, 1, "buildah")
    assert isinstance(error, FindingError)
    assert "RUN make all" in error.message
    assert "a.c:3: no such thing" in error.message
    assert "status 2" in error.message


def test_a_step_of_buildah_that_was_killed_is_not_the_steps_fault() -> None:
    text = (
        "STEP 2/2: RUN sleep 60\nstarted\nsubprocess exited on killed\n"
        'Error: building at STEP "RUN sleep 60": exit status 1\n'
    )
    error = told(BuildahTranscript(), text, 1, "buildah")
    assert isinstance(error, EnvironmentProblem)
    assert "RUN sleep 60" in error.message


def test_only_the_end_of_a_long_output_is_shown() -> None:
    lines = "\n".join(f"#5 0.1 line {number}" for number in range(500))
    text = f"#5 [2/2] RUN x\n{lines}\n#5 ERROR: did not complete successfully: exit code: 1\n"
    error = told(BuildKitTranscript(), text, 1)
    assert "line 499" in error.message
    assert "line 480" not in error.message


def test_a_step_that_prints_nothing_is_said_to() -> None:
    text = "#5 [2/2] RUN false\n#5 ERROR: process did not complete successfully: exit code: 1\n"
    assert "it printed nothing" in told(BuildKitTranscript(), text, 1).message


@pytest.mark.parametrize(
    ("text", "status", "kind", "words"),
    [
        (
            "ERROR: Cannot connect to the Docker daemon at unix:///x.",
            1,
            EnvironmentProblem,
            "daemon",
        ),
        ("ERROR: failed to solve: Unavailable: error reading: EOF", 1, EnvironmentProblem, "EOF"),
        (
            "#3 [2/2] RUN x\n#3 ERROR: write /a: no space left on device\nERROR: x",
            1,
            EnvironmentProblem,
            "no space left",
        ),
        (
            "ERROR: failed to solve: dockerfile parse error on line 3: unknown instruction: FRM",
            1,
            InputError,
            "line 3",
        ),
        ("#1 [internal] load", -15, EnvironmentProblem, "signal 15"),
        ("", 1, EnvironmentProblem, "it said nothing"),
    ],
)
def test_every_other_end_is_the_environment_or_the_dockerfile(
    text: str, status: int, kind: type[StackpatchError], words: str
) -> None:
    error = told(BuildKitTranscript(), text, status)
    assert isinstance(error, kind)
    assert words in error.message
    assert str(LOG) in str(error.hint)


def test_a_base_that_a_builder_cannot_reach_is_told_with_a_way_out() -> None:
    """What a builder on another machine says of a registry on this one."""
    image = f"127.0.0.1:5000/base@sha256:{'4a' * 32}"
    why = 'failed to do request: Head "https://127.0.0.1:5000/v2/": network is unreachable'
    text = f"ERROR: failed to solve: {image}: failed to resolve source metadata for {image}: {why}"
    error = told(BuildKitTranscript(), text, 1)
    assert isinstance(error, EnvironmentProblem)
    assert error.message == f"buildx cannot read the image {image}: {why}"
    assert "--base DIR" in str(error.hint)
    assert str(LOG) in str(error.hint)


@pytest.mark.parametrize(
    ("engine", "transcript", "text", "login"),
    [
        (
            "buildah",
            BuildahTranscript(),
            (
                "Error: initializing source docker://r.test/a@sha256:00: reading manifest"
                " sha256:00 in r.test/a: unauthorized: authentication required"
            ),
            "buildah login",
        ),
        (
            "buildx",
            BuildKitTranscript(),
            (
                "ERROR: failed to solve: r.test/a@sha256:00: failed to resolve source metadata for"
                " r.test/a@sha256:00: pull access denied, repository does not exist or may require"
                " authorization: server message: insufficient_scope: authorization failed"
            ),
            "docker login",
        ),
    ],
)
def test_a_registry_that_wants_a_login_from_an_engine_is_told_with_which_one_it_uses(
    engine: str, transcript: Transcript, text: str, login: str
) -> None:
    error = told(transcript, text, 125, engine)
    assert isinstance(error, EnvironmentProblem)
    assert "was not let into a registry" in error.message
    assert "r.test/a" in error.message
    assert login in str(error.hint)
    assert str(LOG) in str(error.hint)


def test_state_and_byte_counts_are_not_worth_showing() -> None:
    shown = [line for line in FAILED.splitlines() if interesting(line)]
    assert "#5 0.518 a.c:3: error: no such thing" in shown
    assert "#5 [wheel 2/3] RUN make all" in shown
    assert not [line for line in shown if "DONE" in line or "transferring" in line]


def test_secrets_are_taken_out_wherever_they_stand() -> None:
    cleaner = Redactor.of([b"hunter2-is-long\nshort\nsecond secret line\n"])
    assert cleaner.clean("#5 0.1 token=hunter2-is-long!") == "#5 0.1 token=***!"
    assert cleaner.clean("a second secret line b") == "a *** b"
    assert cleaner.clean("short") == "short"
    assert cleaner.clean("nothing") == "nothing"


PIP = """\
[global]
index-url = https://me:p%40ss-word@pypi.corp.test/simple
extra-index-url = https://tok-en-alone@other.test/simple https://plain.test/simple
proxy = http://proxy.test:3128
[tool]
api = "quoted-value"
machine x login me password netrc-secret
"""


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("Looking in https://me:p%40ss-word@pypi.corp.test/simple", "Looking in ***"),
        ("error: auth me:p%40ss-word@x failed", "error: auth ***@x failed"),
        ("401 for password p%40ss-word", "401 for password ***"),
        ("decoded p@ss-word", "decoded ***"),
        ("GET https://tok-en-alone@other.test/x", "GET https://***@other.test/x"),
        ("api said quoted-value", "api said ***"),
        ("used netrc-secret", "used ***"),
        ("asking http://proxy.test:3128", "asking http://proxy.test:3128"),
        ("GET https://pypi.corp.test/simple/torch", "GET https://pypi.corp.test/simple/torch"),
    ],
)
def test_what_a_program_makes_of_a_secret_settings_file_is_taken_out(
    printed: str, shown: str
) -> None:
    """It prints a URL or a password, not the line of the pip.conf that it was in."""
    assert Redactor.of([PIP.encode()]).clean(printed) == shown


def test_the_longer_of_two_secrets_goes_first() -> None:
    assert Redactor.of([b"abcdefgh", b"abcdefgh-and-more"]).clean("abcdefgh-and-more") == "***"


def test_a_large_secret_does_not_make_a_log_slow() -> None:
    lines = [f"{number:064x}" for number in range(5000)]
    cleaner = Redactor.of(["\n".join(lines).encode()])
    assert cleaner.clean(f"#5 0.1 {lines[77]}") == "#5 0.1 ***"
    for _ in range(20_000):
        cleaner.clean("#5 0.1 a line of a compiler with a few words")
