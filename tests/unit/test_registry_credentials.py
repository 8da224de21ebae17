"""Logins as docker and podman keep them, challenges as registries write them, and no secret out."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackpatch.registry.auth import Access, Challenge, Login, Secrets, parse_challenges
from stackpatch.registry.credentials import Credentials, Found, find_credentials
from stackpatch.registry.reference import Reference

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "hunter2-and-more"  # noqa: S105 - of nobody


def encoded(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Docker's config.json, empty; podman's files are not there."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    (tmp_path / "docker").mkdir()
    return tmp_path / "docker" / "config.json"


def helper(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(exist_ok=True)
    program = folder / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def found(text: str = "ghcr.io/me/x") -> Found:
    return find_credentials(Reference.parse(text))


def test_nothing_anywhere_is_no_login_and_no_trouble(config: Path) -> None:
    assert found() == Found(None, None)


@pytest.mark.parametrize(
    ("key", "reference"),
    [
        ("ghcr.io", "ghcr.io/me/x"),
        ("https://ghcr.io", "ghcr.io/me/x"),
        ("https://ghcr.io/v2/", "ghcr.io/me/x"),
        ("http://ghcr.io/v1/", "ghcr.io/me/x"),
        ("https://index.docker.io/v1/", "me/x"),
        ("docker.io", "me/x"),
        ("registry-1.docker.io", "ubuntu"),
        ("ghcr.io/me", "ghcr.io/me/x"),
        ("ghcr.io/me/x", "ghcr.io/me/x"),
        ("127.0.0.1:5000", "127.0.0.1:5000/x"),
    ],
)
def test_an_entry_is_found_by_every_spelling(config: Path, key: str, reference: str) -> None:
    config.write_text(json.dumps({"auths": {key: {"auth": encoded("me", SECRET)}}}))
    one = found(reference).credentials
    assert one is not None
    assert (one.username, one.password) == ("me", SECRET)
    assert str(config) in one.origin


@pytest.mark.parametrize("key", ["ghcr.io.example.com", "cr.io", "ghcr.io/m", "ghcr.io:443", ""])
def test_an_entry_for_another_place_is_not_used(config: Path, key: str) -> None:
    config.write_text(json.dumps({"auths": {key: {"auth": encoded("me", SECRET)}}}))
    assert found("ghcr.io/me/x").credentials is None


def test_the_most_exact_entry_counts(config: Path) -> None:
    auths = {
        "ghcr.io": {"auth": encoded("host", SECRET)},
        "ghcr.io/me/x": {"auth": encoded("exact", SECRET)},
        "ghcr.io/me": {"auth": encoded("owner", SECRET)},
    }
    config.write_text(json.dumps({"auths": auths}))
    users = [found(text).credentials for text in ("ghcr.io/me/x", "ghcr.io/me/y", "ghcr.io/z/y")]
    assert [one.username for one in users if one] == ["exact", "owner", "host"]


def test_a_password_may_hold_a_colon_and_letters_beyond_ascii(config: Path) -> None:
    config.write_text(json.dumps({"auths": {"ghcr.io": {"auth": encoded("me", "a:b:ü")}}}))
    one = found().credentials
    assert one is not None
    assert one.password == "a:b:ü"  # noqa: S105


@pytest.mark.parametrize(
    ("entry", "wanted"),
    [
        ({"identitytoken": SECRET}, ("", None, SECRET, None)),
        ({"registrytoken": SECRET}, ("", None, None, SECRET)),
        ({"username": "me", "password": SECRET}, ("me", SECRET, None, None)),
        (
            {"auth": encoded("<token>", ""), "identitytoken": SECRET},
            ("<token>", None, SECRET, None),
        ),
    ],
)
def test_the_other_forms_of_an_entry(
    config: Path, entry: dict[str, str], wanted: tuple[str | None, ...]
) -> None:
    config.write_text(json.dumps({"auths": {"ghcr.io": entry}}))
    one = found().credentials
    assert one is not None
    assert (one.username, one.password, one.identity, one.registry_token) == wanted


def test_podmans_file_is_read_and_dockers_comes_first(config: Path, tmp_path: Path) -> None:
    podman = tmp_path / "run" / "containers" / "auth.json"
    podman.parent.mkdir(parents=True)
    podman.write_text(json.dumps({"auths": {"ghcr.io": {"auth": encoded("podman", SECRET)}}}))
    one = found().credentials
    assert one is not None
    assert one.username == "podman"
    config.write_text(json.dumps({"auths": {"ghcr.io": {"auth": encoded("docker", SECRET)}}}))
    one = found().credentials
    assert one is not None
    assert one.username == "docker"


def test_a_named_file_comes_before_all(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text(json.dumps({"auths": {"ghcr.io": {"auth": encoded("docker", SECRET)}}}))
    named = tmp_path / "named.json"
    named.write_text(json.dumps({"auths": {"ghcr.io": {"auth": encoded("named", SECRET)}}}))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(named))
    one = found().credentials
    assert one is not None
    assert one.username == "named"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (f'{{"auths": "{SECRET}', "holds no JSON object"),
        (f'["{SECRET}"]', "holds no JSON object"),
        (json.dumps({"auths": {"ghcr.io": {"auth": f"!{SECRET}"}}}), "not base64"),
        (
            json.dumps({"auths": {"ghcr.io": {"auth": base64.b64encode(b"nocolon").decode()}}}),
            "USER:PASSWORD",
        ),
        (json.dumps({"credsStore": f"../{SECRET}/x"}), "a word"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_without_what_it_holds(
    config: Path, content: str, told: str
) -> None:
    config.write_text(content)
    one = found()
    assert one.credentials is None
    assert told in str(one.trouble)
    assert str(config) in str(one.trouble)
    if "word" not in told:
        assert SECRET not in str(one.trouble)


@pytest.mark.parametrize(
    "content", ['{"auths": null}', '{"auths": {"ghcr.io": 3}}', '{"auths": {"ghcr.io": {}}}', ""]
)
def test_a_file_without_logins_is_no_trouble(config: Path, content: str) -> None:
    config.write_text(content)
    assert found() == Found(None, None)


@pytest.mark.parametrize("how", ["credHelpers", "credsStore"])
def test_a_helper_is_asked_for_the_host(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    answer = json.dumps({"ServerURL": "x", "Username": "me", "Secret": SECRET})
    helper(tmp_path / "bin", "test", f"cat > {tmp_path}/asked; echo '{answer}'", monkeypatch)
    value: Any = {"ghcr.io": "test"} if how == "credHelpers" else "test"
    config.write_text(json.dumps({how: value}))
    one = found().credentials
    assert one is not None
    assert (one.username, one.password) == ("me", SECRET)
    assert (tmp_path / "asked").read_text() == "ghcr.io"
    assert "docker-credential-test" in one.origin


def test_docker_hub_is_asked_for_by_the_name_that_docker_gives_it(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = json.dumps({"Username": "<token>", "Secret": SECRET})
    helper(tmp_path / "bin", "test", f"cat > {tmp_path}/asked; echo '{answer}'", monkeypatch)
    config.write_text(json.dumps({"credsStore": "test"}))
    one = found("ubuntu").credentials
    assert one is not None
    assert one.identity == SECRET
    assert one.password is None
    assert (tmp_path / "asked").read_text() == "https://index.docker.io/v1/"


def test_a_helper_for_a_host_comes_before_the_store_and_the_file(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper(tmp_path / "bin", "store", "exit 9", monkeypatch)
    answer = json.dumps({"Username": "helped", "Secret": SECRET})
    helper(tmp_path / "bin", "mine", f"echo '{answer}'", monkeypatch)
    config.write_text(
        json.dumps(
            {
                "credsStore": "store",
                "credHelpers": {"ghcr.io": "mine"},
                "auths": {"ghcr.io": {"auth": encoded("file", SECRET)}},
            }
        )
    )
    one = found().credentials
    assert one is not None
    assert one.username == "helped"
    # For another host the store is asked; it fails, and the file has nothing for it.
    other = found("quay.io/x")
    assert other.credentials is None
    assert "ended with status 9" in str(other.trouble)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (f"echo {SECRET}; echo {SECRET} >&2; exit 1", "ended with status 1"),
        (f"echo {SECRET}", "something else than a login"),
        (f'echo \'{{"Username": 3, "Secret": "{SECRET}"}}\'', "something else than a login"),
        ('echo \'{"Username": "me", "Secret": ""}\'', "something else than a login"),
    ],
)
def test_a_helper_that_fails_is_told_and_never_repeated(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, told: str
) -> None:
    helper(tmp_path / "bin", "test", script, monkeypatch)
    config.write_text(json.dumps({"credHelpers": {"ghcr.io": "test"}}))
    one = found()
    assert one.credentials is None
    assert told in str(one.trouble)
    assert SECRET not in str(one.trouble)


def test_a_helper_that_has_nothing_is_no_trouble(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "echo 'credentials not found in native keychain'; exit 1"
    helper(tmp_path / "bin", "test", script, monkeypatch)
    config.write_text(json.dumps({"credsStore": "test"}))
    assert found() == Found(None, None)


def test_a_helper_that_is_not_there_is_told(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    config.write_text(json.dumps({"credsStore": "desktop"}))
    assert "docker-credential-desktop is not installed" in str(found().trouble)


def test_a_login_shows_no_secret() -> None:
    one = Credentials("here", "me", SECRET, SECRET, SECRET)
    assert SECRET not in repr(one)
    assert SECRET not in repr(Found(one))
    secrets = Secrets()
    secrets.keep(SECRET)
    assert SECRET not in repr(Login(lambda: Found(one), secrets))


def test_secrets_are_hidden_in_every_form() -> None:
    secrets = Secrets()
    secrets.keep("a/b+c=d&e", None, "", "abc")
    said = "x a/b+c=d&e y a%2Fb%2Bc%3Dd%26e z abc"
    assert secrets.hide(said) == "x **** y **** z abc"


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("", ()),
        ("Basic", (Challenge("basic", {}),)),
        ('Basic realm="x"', (Challenge("basic", {"realm": "x"}),)),
        ("Basic realm=x", (Challenge("basic", {"realm": "x"}),)),
        (
            'Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push"',
            (
                Challenge(
                    "bearer",
                    {"realm": "https://a/t", "service": "s", "scope": "repository:a/b:pull,push"},
                ),
            ),
        ),
        (
            'Basic realm="x, y", Bearer realm="z"',
            (Challenge("basic", {"realm": "x, y"}), Challenge("bearer", {"realm": "z"})),
        ),
        (
            'bearer  realm = "a\\"b" , error="insufficient_scope"',
            (Challenge("bearer", {"realm": 'a"b', "error": "insufficient_scope"}),),
        ),
        (
            "Negotiate, Basic realm=x",
            (Challenge("negotiate", {}), Challenge("basic", {"realm": "x"})),
        ),
    ],
)
def test_challenges_as_registries_write_them(header: str, wanted: tuple[Challenge, ...]) -> None:
    assert parse_challenges(header) == wanted


@given(st.text(max_size=60) | st.text(alphabet='Bearer="\\, x', max_size=60))
def test_any_header_is_read_without_an_error(header: str) -> None:
    for challenge in parse_challenges(header):
        assert challenge.scheme == challenge.scheme.lower()


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}", fullmatch=True),
        st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
        max_size=4,
    )
)
def test_quoted_values_are_read_as_they_were_written(values: dict[str, str]) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = "Bearer " + ",".join(f"{name}={quoted(value)}" for name, value in values.items())
    assert parse_challenges(header)[0] == Challenge("bearer", values)


def test_a_scope_as_token_servers_read_it() -> None:
    assert Access("a/b", ("pull", "push")).scope == "repository:a/b:pull,push"
