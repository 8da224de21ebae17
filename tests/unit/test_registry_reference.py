"""Image references: what docker reads, and one reason for everything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackpatch.errors import InputError
from stackpatch.model.digest import Digest
from stackpatch.registry.reference import Reference, is_loopback, looks_like_reference

_HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("ubuntu", "docker.io/library/ubuntu"),
        ("ubuntu:24.04", "docker.io/library/ubuntu:24.04"),
        ("me/tool", "docker.io/me/tool"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu"),
        ("index.docker.io/me/tool:1", "docker.io/me/tool:1"),
        ("localhost/x", "localhost/x"),
        ("localhost:5000/x:y", "localhost:5000/x:y"),
        ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c"),
        ("[::1]:5000/x:t", "[::1]:5000/x:t"),
        ("GHCR.IO/me/x:Tag", "ghcr.io/me/x:Tag"),
        ("nvcr.io/nvidia/pytorch:25.10-py3", "nvcr.io/nvidia/pytorch:25.10-py3"),
        (f"ghcr.io/x@sha256:{_HEX}", f"ghcr.io/x@sha256:{_HEX}"),
        (f"ghcr.io/x:t@sha256:{_HEX}", f"ghcr.io/x:t@sha256:{_HEX}"),
        ("r.io/a__b/c---d/e.f", "r.io/a__b/c---d/e.f"),
        (f"r.io/x:{'t' * 128}", f"r.io/x:{'t' * 128}"),
    ],
)
def test_a_reference_in_its_full_form(text: str, full: str) -> None:
    assert str(Reference.parse(text)) == full
    assert Reference.parse(full) == Reference.parse(text)


@pytest.mark.parametrize(
    ("text", "why", "hint"),
    [
        ("", "no repository", "HOST"),
        ("ghcr.io/", "no repository", "HOST"),
        ("ghcr.io/Me/FlashInfer:x", "no capitals", "write ghcr.io/me/flashinfer:x"),
        ("FlashInfer", "no capitals", "write flashinfer"),
        ("Foo/bar", "no capitals", "write foo/bar"),
        ("ghcr.io/x:0.6.3+sp.1", "a tag is", "0.6.3_sp.1"),
        ("ghcr.io/x:-a", "a tag is", "HOST"),
        (f"ghcr.io/x:{'t' * 129}", "a tag is", "HOST"),
        ("ghcr.io/x:", "a tag is", "HOST"),
        ("ghcr.io//x", "an empty one", "HOST"),
        ("ghcr.io/a..b", "'a..b'", "HOST"),
        ("ghcr.io/a_-b", "'a_-b'", "HOST"),
        ("ghcr.io/x@sha256:abc", "64 small hex", "HOST"),
        (f"ghcr.io/x@sha256:{_HEX.upper()}", "64 small hex", "HOST"),
        ("ghcr.io/x@md5:abc", "only sha256", "HOST"),
        ("https://ghcr.io/x", "starts with https://", "write it without https://, as ghcr.io/x"),
        ("docker://ghcr.io/x", "starts with docker://", "as ghcr.io/x"),
        ("ghcr.io/x y", "a space", "HOST"),
        ("ghcr.io/x\n", "a space or a control", "HOST"),
        ("-x.io/y", "no host name", "HOST"),
        ("ghcr.io:99999/x", "no host name", "HOST"),
        ("ghcr.io:abc/x", "no host name", "HOST"),
        ("a:b:c", "each part", "HOST"),
        (f"ghcr.io/{'a' * 250}", "more than 255", "HOST"),
    ],
)
def test_what_is_none_is_refused_with_the_reason(text: str, why: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        Reference.parse(text, what="--to")
    assert why in caught.value.message
    assert caught.value.message.startswith("--to")
    assert hint in str(caught.value.hint)
    assert "\n" not in caught.value.message


def test_credentials_in_a_reference_are_refused_and_not_repeated() -> None:
    with pytest.raises(InputError) as caught:
        Reference.parse("me:hunter2secret@ghcr.io/x", what="--to")
    assert "hunter2secret" not in f"{caught.value.message}{caught.value.hint}"
    assert "docker login" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("host", "is_one"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:1", True),
        ("127.9.9.9", True),
        ("[::1]:80", True),
        ("128.0.0.1", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("example.com", False),
        ("[::2]", False),
    ],
)
def test_loopback_is_this_machine_and_nothing_that_looks_like_it(host: str, is_one: bool) -> None:
    assert is_loopback(host) is is_one


def test_docker_hub_is_asked_at_the_host_that_speaks_the_protocol() -> None:
    assert Reference.parse("ubuntu").api_host == "registry-1.docker.io"
    assert Reference.parse("ghcr.io/x").api_host == "ghcr.io"


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("ghcr.io/x", True),
        ("localhost:5000/x", True),
        ("localhost/x", True),
        ("./ghcr.io/x", False),
        ("../x/y", False),
        ("/a.b/c", False),
        ("images/base", False),
        ("scratch", False),
        ("a.b", False),
        ("~/x.y/z", False),
    ],
)
def test_what_can_only_be_a_registry(text: str, is_one: bool) -> None:
    assert looks_like_reference(text) is is_one


_COMPONENT = st.from_regex(r"[a-z0-9]{1,6}((\.|_|__|-{1,3})[a-z0-9]{1,6}){0,2}", fullmatch=True)
_HOSTS = st.from_regex(r"([a-z0-9]{1,8}\.){1,2}[a-z]{2,5}(:[1-9][0-9]{0,3})?", fullmatch=True)
_TAGS = st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)
_DIGESTS = st.none() | st.binary(max_size=3).map(Digest.of)


@given(host=_HOSTS, parts=st.lists(_COMPONENT, min_size=1, max_size=4), tag=_TAGS, digest=_DIGESTS)
def test_what_is_written_is_read_again(
    host: str, parts: list[str], tag: str | None, digest: Digest | None
) -> None:
    made = Reference(host, "/".join(parts), tag, digest)
    assert Reference.parse(str(made)) == made
    assert str(made.at(Digest.of(b""))) == f"{host}/{'/'.join(parts)}@{Digest.of(b'')}"


@given(st.text(max_size=40) | st.text(alphabet="aA0._-:/@[]+ \n", max_size=40))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    said = None
    try:
        read = Reference.parse(text)
    except InputError as error:
        said = error.message
    if said is not None:
        assert "\n" not in said
    else:
        assert Reference.parse(str(read)) == read
