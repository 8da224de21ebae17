"""Names of stacks and upstream versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackpatch.errors import InputError
from stackpatch.model.reference import SourceKind, StackRef, VersionRef, version_number


@pytest.mark.parametrize(
    ("text", "stack", "release"),
    [
        ("flashinfer", "flashinfer", None),
        ("flashinfer@0.6.3", "flashinfer", "0.6.3"),
        ("flashinfer@v0.6.3", "flashinfer", "0.6.3"),
        ("trtllm@1.3.0rc24", "trtllm", "1.3.0rc24"),
        ("sglang@0.5.6.post2", "sglang", "0.5.6.post2"),
        ("sgl-kernel@0.3.18-2", "sgl-kernel", "0.3.18.post2"),
    ],
)
def test_a_stack_may_carry_a_release(text: str, stack: str, release: str | None) -> None:
    assert StackRef.parse(text) == StackRef(stack, release)


@pytest.mark.parametrize(
    "text", ["", "@0.6.3", "../x", "Flash Infer", "-x", "a/b", "flashinfer\n", ".git", "a-"]
)
def test_a_bad_stack_name_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a stack name") as caught:
        StackRef.parse(text, where="argument")
    assert caught.value.where == "argument"
    assert "flashinfer@0.6.3" in str(caught.value.hint)


@pytest.mark.parametrize("text", ["flashinfer@", "flashinfer@main", "a@b@c", "a@ 0.6"])
def test_a_bad_release_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a release number"):
        StackRef.parse(text)


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("v0.6.12", None, "0.6.12"),
        ("0.6.12", None, "0.6.12"),
        ("0.7.2.post1", None, "0.7.2.post1"),
        ("sdist:v0.6.12", SourceKind.SDIST, "0.6.12"),
        ("wheel:0.6.12", SourceKind.WHEEL, "0.6.12"),
        ("git:main", SourceKind.GIT, "main"),
        ("git:v0.6.12", SourceKind.GIT, "v0.6.12"),
        ("git:release/1.x", SourceKind.GIT, "release/1.x"),
        (f"git:{'d0886ce2' * 5}", SourceKind.GIT, "d0886ce2" * 5),
    ],
)
def test_an_upstream_version_is_named(text: str, kind: SourceKind | None, name: str) -> None:
    assert VersionRef.parse(text) == VersionRef(kind, name)


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("main", "not a version number", "git:main"),
        ("d0886ce2b67761a5b4f9396b4c3741f7860791b0", "not a version number", "git:d0886ce2"),
        ("12345678" * 5, "not a version number", "git:12345678"),
        ("", "not a version number", "write 0.6.12"),
        ("0.6 .12", "not a version number", "write 0.6.12"),
        ("sdits:0.6.12", "unknown kind of source", "did you mean sdist:0.6.12?"),
        ("tarball:0.6", "unknown kind of source", "write 0.6.12"),
        ("ext::sh -c id", "unknown kind of source", "write 0.6.12"),
        ("sdist:main", "not a version number", "write 0.6.12"),
        ("wheel:", "not a version number", "write 0.6.12"),
        ("git:", "not a git commit", "write 0.6.12"),
        ("git:--upload-pack=x", "not a git commit", "write"),
        ("git:a..b", "not a git commit", "write"),
        ("git:a b", "not a git commit", "write"),
        ("git:a.lock", "not a git commit", "write"),
        ("git:@{u}", "not a git commit", "write"),
        ("git:.hidden/x", "not a git commit", "write"),
    ],
)
def test_what_names_no_version_is_refused_with_the_right_spelling(
    text: str, says: str, hint: str
) -> None:
    with pytest.raises(InputError, match=says) as caught:
        VersionRef.parse(text)
    assert hint in str(caught.value.hint)


@given(st.text(max_size=30))
def test_any_text_parses_or_is_refused_in_words(text: str) -> None:
    for parse in (StackRef.parse, VersionRef.parse):
        try:
            first = parse(text)
        except InputError:
            continue
        assert parse(str(first)) == first


def test_the_version_behind_a_tag() -> None:
    assert VersionRef.parse("git:v0.6.12").version == "0.6.12"
    assert VersionRef.parse("git:main").version is None
    assert version_number("v1.3.0rc24") == "1.3.0rc24"
    assert version_number(" 1.0") is None
