"""Signing: real cosign signs and verifies, and every way in which it may fail ends before the tag.

What cosign needs a network for (an identity, the public transparency log) is left out with the
options that it has for that; a program in its place only fails, or notes what it was asked.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.debian import program_of_debian
from tests.publishing import publication, publish

from stackpatch.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from tests.faulty_registry import FaultyRegistry
    from tests.registries import RunningRegistry

    from stackpatch.registry.finished import Finished

_SERIAL = iter(range(10**6))
_UNLOCKS = "of-the-key-and-nobody-elses"
_OFFLINE = "--tlog-upload=false"


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A key pair of cosign's own making; cosign is on PATH, and its password in its variable."""
    program = program_of_debian("cosign")
    monkeypatch.setenv("PATH", f"{Path(program).parent}:/usr/bin:/bin")
    monkeypatch.setenv("COSIGN_PASSWORD", _UNLOCKS)
    words = [program, "generate-key-pair", "--output-key-prefix", str(tmp_path / "our")]
    subprocess.run(words, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return tmp_path / "our.key"


def cosign(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["cosign", *map(str, words)], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def test_cosign_verifies_what_it_signed_for_us(
    registry: RunningRegistry, name: str, small: Finished, key: Path
) -> None:
    said: list[str] = []
    options = (f"--key={key}", _OFFLINE)
    made, _ = publication(small, registry.host, name, sign=True, cosign=options, say=said.append)
    done = made.run()
    assert done.signed
    assert done.moved
    at = f"{registry.host}/{name}@{done.digest}"
    ignore = "--insecure-ignore-tlog=true"
    verified = cosign("verify", "--key", key.with_suffix(".pub"), ignore, at)
    assert verified.returncode == 0, verified.stderr
    (claim,) = json.loads(verified.stdout)
    assert claim["critical"]["image"]["docker-manifest-digest"] == str(done.digest)
    # Nobody signed the image by itself: who pulls the tag gets the index.
    alone = cosign(
        "verify", "--key", key.with_suffix(".pub"), ignore, f"{registry.host}/{name}@{done.image}"
    )
    assert alone.returncode != 0
    assert any("Pushing signature" in line for line in said)
    assert _UNLOCKS not in "".join(said)


def test_a_second_time_signs_again_and_moves_nothing(
    registry: RunningRegistry, name: str, small: Finished, key: Path
) -> None:
    """Whoever forgot --sign says it the next time."""
    first = publish(small, registry.host, name)
    assert not first.signed
    again = publish(small, registry.host, name, sign=True, cosign=(f"--key={key}", _OFFLINE))
    assert again.signed
    assert not again.moved
    assert again.digest == first.digest


def test_a_wrong_password_ends_with_cosigns_words_and_without_a_tag(
    registry: RunningRegistry,
    name: str,
    small: Finished,
    key: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COSIGN_PASSWORD", "something-else-entirely")
    said: list[str] = []
    options = (f"--key={key}", _OFFLINE)
    made, _ = publication(small, registry.host, name, sign=True, cosign=options, say=said.append)
    with pytest.raises(EnvironmentProblem, match=r"cosign could not sign .*decrypt") as caught:
        made.run()
    assert "error during command" not in caught.value.message
    assert "something-else" not in caught.value.message + "".join(said)
    assert "t" not in registry.tags(name)


def test_without_cosign_it_ends_before_anything_is_sent(
    proxy: FaultyRegistry, name: str, small: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(EnvironmentProblem, match="needs cosign"):
        publish(small, proxy.host, name, sign=True)
    assert proxy.asked == []


@pytest.mark.parametrize("word", ["key=cosign.key", "-y", "", "docker.io/another/image", "--"])
def test_a_word_that_is_no_option_is_refused_before_anything_is_sent(
    proxy: FaultyRegistry, name: str, small: Finished, key: Path, word: str
) -> None:
    """cosign would take it for one more image to sign."""
    with pytest.raises(InputError, match="--cosign-option"):
        publish(small, proxy.host, name, sign=True, cosign=(word,))
    assert proxy.asked == []


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> Path:
    """A program in cosign's place; where it notes its words."""
    (folder / "bin").mkdir()
    program = folder / "bin" / "cosign"
    noted = folder / "asked"
    program.write_text("\n".join(["#!/bin/sh", f'printf "%s\\n" "$@" >> {noted}', *lines, ""]))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return noted


def test_it_signs_the_index_while_the_tag_does_not_name_it(
    registry: RunningRegistry,
    name: str,
    small: Finished,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tags = f"http://{registry.host}/v2/{name}/tags/list"
    noted = stand_in(tmp_path, monkeypatch, f"curl --noproxy '*' -s {tags} > {tmp_path}/tags")
    done = publish(small, registry.host, name, sign=True, cosign=("--key=k",))
    at = f"{registry.host}/{name}@{done.digest}"
    assert noted.read_text().splitlines() == ["sign", "--yes", at, "--key=k"]
    assert "t" not in json.loads((tmp_path / "tags").read_text()).get("tags", [])
    assert "t" in registry.tags(name)


def test_a_token_on_the_command_line_is_in_no_message(
    registry: RunningRegistry,
    name: str,
    small: Finished,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in(tmp_path, monkeypatch, 'echo "Error: bad token: $4" >&2', 'echo "again: $4"', "exit 3")
    said: list[str] = []
    options = ("--identity-token=eyJ-secret-token",)
    made, _ = publication(small, registry.host, name, sign=True, cosign=options, say=said.append)
    with pytest.raises(EnvironmentProblem) as caught:
        made.run()
    assert caught.value.message.endswith("bad token: --identity-token=****")
    assert "secret-token" not in "".join(said)
    assert said, "what cosign prints is shown as it comes"
    assert "t" not in registry.tags(name)


def test_one_that_ends_without_a_word_is_told_by_its_status(
    registry: RunningRegistry,
    name: str,
    small: Finished,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in(tmp_path, monkeypatch, "exit 9")
    with pytest.raises(EnvironmentProblem, match="it ended with status 9"):
        publish(small, registry.host, name, sign=True)
