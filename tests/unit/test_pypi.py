"""The simple API in both forms, several indexes, and what an index must not get away with."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.serving import Reply, Server, serving

from stackpatch.errors import EnvironmentProblem, FindingError, InputError
from stackpatch.sources.pipconfig import IndexSettings
from stackpatch.sources.pypi import IndexFile, PackageIndex, parse_page
from stackpatch.sources.transport import Answer, Interrupted, Transport, redact

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SDIST, WHEEL = "pkg-1.0.tar.gz", "pkg-1.0-py3-none-any.whl"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def index(*indexes: str, pauses: list[float] | None = None, **settings: object) -> PackageIndex:
    known = {"indexes": indexes, "timeout": 10.0, "retries": 3, **settings}
    waited = [] if pauses is None else pauses
    return PackageIndex(Transport(IndexSettings(**known), pause=waited.append))  # type: ignore[arg-type]


@pytest.mark.parametrize("json_", [False, True])
def test_the_files_of_a_project(server: Server, json_: bool) -> None:
    server.put("pkg", SDIST, b"sdist", json_=json_)
    path = server.put("pkg", WHEEL, b"wheel", json_=json_, yanked="broken")
    first, second = index(server.index).files("Pkg")
    assert (first.name, first.yanked, first.size) == (SDIST, None, 5 if json_ else None)
    assert (second.name, second.yanked) == (WHEEL, "broken")
    assert second.url == f"{server.url}{path}"
    assert second.sha256 is not None
    assert second.page == f"{server.index}/pkg/"
    when = datetime(2026, 2, 6, 0, 28, 23, tzinfo=UTC)
    assert first.uploaded == (when if json_ else None)


def test_json_is_preferred_and_html_taken(server: Server) -> None:
    server.put("pkg", SDIST, b"x")
    index(server.index).files("pkg")
    accept = server.asked[0].headers["Accept"]
    assert accept.index("v1+json") < accept.index("v1+html") < accept.index("text/html")


def test_a_page_is_read_once(server: Server) -> None:
    server.put("pkg", SDIST, b"x")
    one = index(server.index)
    one.files("pkg")
    one.locate("pkg", SDIST, None)
    assert server.paths() == ["/simple/pkg/"]


@pytest.mark.parametrize("yanked", ["", "why"])
@pytest.mark.parametrize("json_", [False, True])
def test_yanked_without_a_reason_is_yanked(server: Server, json_: bool, yanked: str) -> None:
    server.put("pkg", SDIST, b"x", json_=json_, yanked=yanked)
    assert index(server.index).files("pkg")[0].yanked == yanked


def test_a_redirect_and_a_base_move_relative_links(server: Server) -> None:
    page = b'<html><head><base href="/other/place/"></head><a href="../f/%s#sha256=%s">x</a>'
    server.replies["/simple/pkg/"] = Reply(status=302, headers={"Location": "/moved/pkg/"})
    server.replies["/moved/pkg/"] = Reply(page % (SDIST.encode(), b"a" * 64), kind="text/html")
    (found,) = index(server.index).files("pkg")
    assert found.url == f"{server.url}/other/f/{SDIST}"


def test_odd_links_are_read_as_browsers_do() -> None:
    text = f"""
      <A class=x HREF="../{SDIST}?x=1#sha256={"A" * 64}&amp;egg=pkg" data-yanked>a</A>
      <a href='%70kg-1.1.tar.gz'>b</a> <a name="anchor">c</a> <a href="">d</a> <a href="dir/">e</a>
      <a href="https://e.example/pkg-1.2.zip#md5=1234">f</a>
    """
    found = parse(text, url="https://i.example/simple/pkg/")
    assert [(each.name, each.sha256, each.yanked) for each in found] == [
        (SDIST, "a" * 64, ""),
        ("pkg-1.1.tar.gz", None, None),
        ("pkg-1.2.zip", None, None),
    ]
    assert found[0].url == f"https://i.example/simple/{SDIST}?x=1"


def parse(text: str, kind: str = "text/html", url: str = "https://i.example/") -> list[IndexFile]:
    return parse_page(text.encode(), Answer(200, url, {"Content-Type": kind}, iter(())))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{", "application/json"),
        ("[]", "application/vnd.pypi.simple.v1+json"),
        ('{"files": 3}', "application/json"),
        ('{"files": [{}]}', "application/json"),
        ('{"files": [{"url": "x"}]}', "application/json"),
        ('{"meta": 1, "files": []}', "application/json"),
        ("[" * 100_000, "application/json"),
    ],
)
def test_json_that_is_no_index_page_is_said(text: str, kind: str) -> None:
    with pytest.raises(EnvironmentProblem, match="cannot be understood"):
        parse(text, kind)


def test_what_is_no_index_page_is_said() -> None:
    with pytest.raises(EnvironmentProblem, match="its type is image/png"):
        parse("x", "image/png")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"meta": {"api-version": "2.0"}, "files": []}', "application/json"),
        ('<meta name="pypi:repository-version" content="2.0">', "text/html"),
    ],
)
def test_a_later_version_of_the_api_is_refused(text: str, kind: str) -> None:
    with pytest.raises(EnvironmentProblem, match=r"speaks version 2\.0"):
        parse(text, kind)


@given(st.text(max_size=200), st.sampled_from(["text/html", "application/json"]))
def test_any_page_is_read_or_refused_in_words(text: str, kind: str) -> None:
    try:
        found = parse(text, kind)
    except EnvironmentProblem:
        return
    assert all(each.name for each in found)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: (
    st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["meta", "files", "url", "filename", "hashes", "sha256", "yanked", "size"]),
        inner,
    )
)))  # fmt: skip
def test_any_json_is_read_or_refused_in_words(page: object) -> None:
    try:
        parse(json.dumps(page), "application/json")
    except EnvironmentProblem as error:
        assert "index" in error.message  # noqa: PT017 - either outcome is right


# --- several indexes ----------------------------------------------------------------------------


def test_an_index_without_the_project_is_passed_over(server: Server) -> None:
    server.put("pkg", SDIST, b"x")
    both = index(f"{server.url}/empty", server.index)
    assert [each.name for each in both.files("pkg")] == [SDIST]
    assert server.paths() == ["/empty/pkg/", "/simple/pkg/"]


def test_a_project_that_nobody_has_is_said_with_where_we_asked(server: Server) -> None:
    secret = server.index.replace("http://", "http://me:s3cret@")
    with pytest.raises(InputError, match="no index has a project 'pkg'") as caught:
        index(secret).files("pkg")
    assert caught.value.hint == f"asked: http://****@{server.host}/simple"
    with pytest.raises(InputError) as caught:
        index().locate("pkg", SDIST, None)
    assert "no-index" in str(caught.value.hint)


def test_a_file_that_nobody_has_is_said_with_the_nearest(server: Server) -> None:
    server.put("pkg", "pkg-1.1.tar.gz", b"x")
    with pytest.raises(InputError, match=r"no index has the file pkg-1\.0\.tar\.gz") as caught:
        index(server.index).locate("pkg", SDIST, "a" * 64)
    assert caught.value.hint == "did you mean pkg-1.1.tar.gz?"


def test_the_pin_decides_between_indexes(server: Server) -> None:
    server.put("pkg", SDIST, b"ours", sha256="a" * 64)
    other = f'<a href="{SDIST}#sha256={"b" * 64}">x</a>'
    server.replies["/mirror/pkg/"] = Reply(other.encode(), kind="text/html")
    both = index(f"{server.url}/mirror", server.index)
    assert both.locate("pkg", SDIST, "a" * 64).page == f"{server.index}/pkg/"
    assert both.locate("pkg", SDIST, "b" * 64).page == f"{server.url}/mirror/pkg/"


@pytest.mark.parametrize("json_", [False, True])
def test_another_sha256_than_the_pin_is_refused_with_both(server: Server, json_: bool) -> None:
    server.put("pkg", SDIST, b"x", json_=json_, sha256="b" * 64)
    with pytest.raises(FindingError) as caught:
        index(server.index).locate("pkg", SDIST, "a" * 64)
    assert "a" * 64 in caught.value.message
    assert "b" * 64 in caught.value.message
    assert caught.value.exit_status == 1


def test_a_link_without_a_digest_serves_a_pin_only(server: Server) -> None:
    server.put("pkg", SDIST, b"x", sha256=None)
    assert index(server.index).locate("pkg", SDIST, "a" * 64).sha256 is None
    with pytest.raises(EnvironmentProblem, match="gives no sha256"):
        index(server.index).locate("pkg", SDIST, None)


def test_a_broken_index_beside_a_good_one(server: Server) -> None:
    server.put("pkg", SDIST, b"x", sha256="a" * 64)
    server.replies["/broken/pkg/"] = Reply(status=403)
    both = index(f"{server.url}/broken", server.index)
    # A pinned file is what it is; a list of versions with holes would be wrong.
    assert both.locate("pkg", SDIST, "a" * 64).name == SDIST
    with pytest.raises(EnvironmentProblem, match="answered 403"):
        both.files("pkg")
    with pytest.raises(EnvironmentProblem, match="answered 403"):
        both.locate("pkg", WHEEL, "a" * 64)


def test_files_of_another_project_on_the_page_are_not_ours(server: Server) -> None:
    page = f'<a href="{SDIST}">1</a><a href="pkg_more-1.0.tar.gz">2</a><a href="evil-1.0.zip">3</a>'
    page += '<a href="pkg_more-1.0-py3-none-any.whl">4</a><a href="PKG-1.0-py3-none-any.whl">5</a>'
    server.replies["/simple/pkg/"] = Reply(page.encode(), kind="text/html")
    names = {each.name for each in index(server.index).files("pkg")}
    assert {SDIST, "PKG-1.0-py3-none-any.whl"} <= names
    assert not names & {"evil-1.0.zip", "pkg_more-1.0-py3-none-any.whl"}


# --- file: and find-links -----------------------------------------------------------------------


def test_a_file_index_is_read_as_pip_reads_it(tmp_path: Path) -> None:
    page = tmp_path / "simple" / "pkg" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(f'<a href="../../w/{SDIST}#sha256={"a" * 64}">x</a>')
    (found,) = index((tmp_path / "simple").as_uri()).files("pkg")
    assert found.url == (tmp_path / "w" / SDIST).as_uri()
    with pytest.raises(InputError, match="no index has a project 'other'"):
        index((tmp_path / "simple").as_uri()).files("other")


@pytest.mark.parametrize("as_url", [False, True])
def test_find_links_to_a_folder(tmp_path: Path, as_url: bool) -> None:
    folder = tmp_path / "my wheels"
    folder.mkdir()
    for name in (SDIST, "other-1.0.tar.gz"):
        (folder / name).write_bytes(b"x")
    (folder / "sub").mkdir()
    place = folder.as_uri() if as_url else str(folder)
    (found,) = index(find_links=(place,)).files("pkg")
    assert (found.name, found.size, found.sha256) == (SDIST, 1, None)
    assert found.url == (folder / SDIST).as_uri()


def test_find_links_to_a_page_and_to_nothing(server: Server, tmp_path: Path) -> None:
    server.replies["/links.html"] = Reply(f'<a href="{SDIST}">x</a>'.encode(), kind="text/html")
    places = (f"{server.url}/links.html", str(tmp_path / "absent"))
    (found,) = index(find_links=places).files("pkg")
    assert found.url == f"{server.url}/{SDIST}"


# --- transport ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 408])
def test_what_may_pass_is_tried_again(server: Server, status: int) -> None:
    server.put("pkg", SDIST, b"x")
    server.script["/simple/pkg/"] = [Reply(status=status), Reply(status=status)]
    pauses: list[float] = []
    assert index(server.index, pauses=pauses).files("pkg")
    assert len(server.asked) == 3
    assert 0.12 < pauses[0] < 0.38
    assert 0.25 <= pauses[1] <= 0.75


@pytest.mark.parametrize("cut", [0, 5])
def test_a_cut_page_is_tried_again(server: Server, cut: int) -> None:
    server.put("pkg", SDIST, b"x")
    server.script["/simple/pkg/"] = [Reply(b"<a href=" * 10, cut=cut, kind="text/html")]
    assert index(server.index).files("pkg")
    assert len(server.asked) == 2


def test_the_server_says_how_long_to_wait(server: Server) -> None:
    server.put("pkg", SDIST, b"x")
    past = "Wed, 21 Oct 2015 07:28:00 GMT"
    server.script["/simple/pkg/"] = [
        Reply(status=429, headers={"Retry-After": "7"}),
        Reply(status=503, headers={"Retry-After": past}),
        Reply(status=503, headers={"Retry-After": "soon"}),
    ]
    pauses: list[float] = []
    index(server.index, pauses=pauses).files("pkg")
    assert pauses[0] == 7.0
    assert all(pause < 2 for pause in pauses[1:])


def test_a_wait_that_is_too_long_is_said(server: Server) -> None:
    header = {"Retry-After": "3600"}
    server.replies["/simple/pkg/"] = Reply(status=429, headers=header)
    with pytest.raises(EnvironmentProblem, match="answered 429, and asks us to wait 3600 s"):
        index(server.index).files("pkg")
    assert len(server.asked) == 1


def test_it_gives_up_after_pips_retries(server: Server) -> None:
    server.replies["/simple/pkg/"] = Reply(status=500)
    with pytest.raises(EnvironmentProblem, match=r"cannot read the index page .* answered 500"):
        index(server.index, retries=2).files("pkg")
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("status", "hint"), [(401, "credentials"), (403, "credentials"), (418, "")]
)
def test_what_will_not_pass_is_not_tried_again(server: Server, status: int, hint: str) -> None:
    server.replies["/simple/pkg/"] = Reply(status=status)
    with pytest.raises(EnvironmentProblem, match=f"answered {status}") as caught:
        index(server.index).files("pkg")
    assert len(server.asked) == 1
    assert hint in str(caught.value.hint)


def test_nobody_there() -> None:
    with serving() as closed:
        gone = closed.index
    with pytest.raises(EnvironmentProblem, match=r"cannot be reached \(.*refused") as caught:
        index(gone, retries=1).files("pkg")
    assert caught.value.hint == "look at the network and run again"


def test_a_server_that_does_not_answer(server: Server) -> None:
    server.replies["/simple/pkg/"] = Reply(b"<html>" + b" " * 70_000, kind="text/html", pause=5.0)
    with pytest.raises(EnvironmentProblem, match=r"broke off|cannot be reached"):
        index(server.index, retries=0, timeout=0.2).files("pkg")


def test_credentials_go_to_their_host_only_and_into_no_message(server: Server) -> None:
    with serving() as other:
        server.put("pkg", SDIST, b"x")
        page = f'<a href="{other.url}/{SDIST}">x</a><a href="/files/{WHEEL}">y</a>'
        server.replies["/simple/pkg/"] = Reply(page.encode(), kind="text/html")
        other.replies[f"/{SDIST}"] = Reply(status=403)
        server.replies[f"/files/{WHEEL}"] = Reply(status=403)
        found = index(server.index.replace("http://", "http://me:s3cr%40t@"))
        basic = "Basic bWU6czNjckB0"  # me:s3cr@t
        files = found.files("pkg")
        assert server.asked[-1].headers["Authorization"] == basic
        for each in files:
            assert "s3cr" not in repr(each)
            with (
                pytest.raises(EnvironmentProblem) as caught,
                found.transport.open(each.url),
            ):
                pass
            assert "s3cr" not in str(caught.value)
        assert server.asked[-1].headers["Authorization"] == basic
        assert "Authorization" not in other.asked[-1].headers


def test_a_redirect_carries_no_credentials_to_another_host(server: Server) -> None:
    with serving() as other:
        other.replies["/page"] = Reply(b"<html>", kind="text/html")
        # Another name for this machine, so another host.
        away = other.url.replace("127.0.0.1", "localhost")
        server.replies["/simple/pkg/"] = Reply(status=302, headers={"Location": f"{away}/page"})
        with pytest.raises(InputError):
            index(server.index.replace("http://", "http://me:secret@")).files("pkg")
        assert "Authorization" not in other.asked[0].headers


def test_redaction() -> None:
    assert redact("https://u:p@h/x?sig=abc#f in text") == "https://****@h/x?…#f in text"
    assert redact("https://tok@h/x") == "https://****@h/x"
    assert redact("git@github.com:a/b") == "git@github.com:a/b"
    assert redact("https://h/a@b") == "https://h/a@b"


def test_a_url_that_is_no_url(server: Server) -> None:
    with pytest.raises(EnvironmentProblem, match="only http, https and file"):
        index("ftp://h/simple").files("pkg")
    server.replies["/simple/pkg/"] = Reply(status=302, headers={"Location": "file:///etc/passwd"})
    with pytest.raises(EnvironmentProblem, match="cannot fetch"):
        index(server.index).files("pkg")


def test_a_redirect_loop_ends(server: Server) -> None:
    loop = {"Location": f"{server.index}/pkg/"}
    server.replies["/simple/pkg/"] = Reply(status=302, headers=loop)
    with pytest.raises(EnvironmentProblem, match="cannot fetch"):
        index(server.index).files("pkg")


def test_a_compressed_page_is_read(server: Server) -> None:
    import gzip

    page = gzip.compress(f'<a href="{SDIST}">x</a>'.encode())
    encoded = {"Content-Encoding": "gzip"}
    server.replies["/simple/pkg/"] = Reply(page, headers=encoded, kind="text/html")
    assert [each.name for each in index(server.index).files("pkg")] == [SDIST]


def test_a_page_without_end_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stackpatch.sources.pypi._PAGE_LIMIT", 1 << 20)
    server.replies["/simple/pkg/"] = Reply(bytes(2 << 20), kind="text/html")
    with pytest.raises(EnvironmentProblem, match="larger than 1 MiB"):
        index(server.index).files("pkg")


def test_the_length_of_a_file(server: Server) -> None:
    path = server.put("pkg", SDIST, b"12345")
    transport = index(server.index).transport
    assert transport.length(f"{server.url}{path}") == 5
    assert transport.length(f"{server.url}/absent") is None


def test_patience_ends_with_the_last_reason() -> None:
    def always() -> None:
        reason = "no luck"
        raise Interrupted(reason)

    with pytest.raises(EnvironmentProblem, match="the thing: no luck"):
        index().transport.patiently(always, "the thing")
