"""Getting into registries that want a login: Basic, tokens, TLS; and nothing secret comes out."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.faulty_registry import faulty
from tests.publishing import base_layout, finished_build, publish
from tests.registries import (
    RunningRegistry,
    TokenServer,
    docker_login,
    htpasswd,
    make_certificates,
    running_registry,
    token_server,
)

from stackpatch.errors import EnvironmentProblem, StackpatchError
from stackpatch.model.digest import Digest
from stackpatch.registry.blobs import Blob
from stackpatch.registry.client import Registry
from stackpatch.registry.push import How, Pusher
from stackpatch.registry.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stackpatch.registry.finished import Finished

PASSWORD = "pass-word-of-mine"  # noqa: S105 - of nobody


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Docker's folder, without logins."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path / "docker"


@pytest.fixture(scope="module")
def basic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    """A registry for one user, with Basic."""
    folder = tmp_path_factory.mktemp("basic")
    with running_registry(folder / "r", auth=htpasswd(folder, "me", PASSWORD)) as running:
        yield running


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenServer]:
    with token_server(tmp_path_factory.mktemp("tokens") / "t") as running:
        yield running


@pytest.fixture(scope="module")
def bearer(
    tokens: TokenServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningRegistry]:
    """A registry that takes that server's tokens."""
    folder = tmp_path_factory.mktemp("bearer")
    with running_registry(folder / "r", auth=tokens.auth()) as running:
        yield running


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished_build(tmp_path_factory.mktemp("small"))


def opened(host: str, name: str) -> Registry:
    made = Registry.open(Reference.parse(f"{host}/{name}"))
    made.session.pause = lambda _: None
    return made


def everything(error: StackpatchError) -> str:
    return f"{error.message} {error.hint} {error.where} {error!r} {error.__cause__!r}"


def test_a_registry_that_wants_a_login_says_how_to_get_one(basic: RunningRegistry) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        opened(basic.host, "a/b").head("t")
    assert "wants a login for pull of a/b" in caught.value.message
    assert "docker login" in str(caught.value.hint)


def test_a_wrong_login_is_told_with_its_file_and_without_its_password(
    basic: RunningRegistry, config: Path
) -> None:
    docker_login(config, basic.host, "me", "wrong-password")
    with pytest.raises(EnvironmentProblem) as caught:
        opened(basic.host, "a/b").head("t")
    assert str(config / "config.json") in caught.value.message
    said = everything(caught.value)
    assert "wrong-password" not in said
    assert base64.b64encode(b"me:wrong-password").decode() not in said


def test_basic_lets_us_push_and_is_offered_unasked_afterwards(
    basic: RunningRegistry, config: Path, small: Finished
) -> None:
    with faulty(basic.host) as proxy:
        docker_login(config, proxy.host, "me", PASSWORD)
        publish(small, proxy.host, "a/pushed")
        refused = [one for one in proxy.asked if "Authorization" not in one.headers]
    # The probe for TLS and the first request; none after that.
    assert len(refused) == 2
    with pytest.raises(EnvironmentProblem, match="wants a login"):
        opened(basic.host, "a/pushed").head("t")


def test_a_registry_that_echoes_what_it_was_sent_finds_no_echo_here(
    basic: RunningRegistry, config: Path
) -> None:
    sent = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    with faulty(basic.host) as proxy:
        docker_login(config, proxy.host, "me", PASSWORD)
        message = f"you sent Basic {sent}, that is me:{PASSWORD}"
        body = json.dumps({"errors": [{"code": "DENIED", "message": message}]}).encode()
        proxy.break_(
            "HEAD|GET", "/v2/.+", status=401, headers={"WWW-Authenticate": "Basic realm=x"}
        )
        proxy.break_("GET", "/v2/.+", times=None, status=403, body=body)
        with pytest.raises(EnvironmentProblem) as caught:
            opened(proxy.host, "a/b").manifest("t")
    said = everything(caught.value)
    assert "DENIED you sent Basic ****" in said
    assert PASSWORD not in said
    assert sent not in said


def test_a_token_is_asked_for_once_for_what_is_done(
    tokens: TokenServer, bearer: RunningRegistry, config: Path, small: Finished
) -> None:
    tokens.users["me"] = PASSWORD
    tokens.grants["me", "a/token"] = {"pull", "push"}
    docker_login(config, bearer.host, "me", PASSWORD)
    tokens.asked.clear()
    publish(small, bearer.host, "a/token")
    scopes = [fields["scope"] for _, fields, _ in tokens.asked]
    assert scopes == [["repository:a/token:pull"], ["repository:a/token:pull,push"]]
    assert all(fields["service"] == ["test registry"] for _, fields, _ in tokens.asked)


def test_a_mount_asks_for_both_repositories(
    tokens: TokenServer, bearer: RunningRegistry, config: Path
) -> None:
    tokens.users["me"] = PASSWORD
    tokens.grants["me", "a/target"] = {"pull", "push"}
    tokens.grants["me", "a/source"] = {"pull", "push"}
    docker_login(config, bearer.host, "me", PASSWORD)
    content = b"layer" * 100
    Pusher(opened(bearer.host, "a/source")).blob(Blob.of_bytes(content))
    tokens.asked.clear()
    made = opened(bearer.host, "a/target")
    assert Pusher(made).blob(Blob.of_bytes(content), mount_from=("a/source",)) is How.MOUNTED
    assert ["repository:a/source:pull", "repository:a/target:pull,push"] in [
        fields["scope"] for _, fields, _ in tokens.asked
    ]


@pytest.mark.parametrize("strict", [False, True])
def test_a_mount_from_where_we_may_not_read_is_sent_instead(
    tokens: TokenServer, bearer: RunningRegistry, config: Path, strict: bool
) -> None:
    """strict: a token server that refuses the two scopes as a whole."""
    tokens.users["me"] = PASSWORD
    tokens.grants["me", "a/own"] = {"pull", "push"}
    docker_login(config, bearer.host, "me", PASSWORD)
    tokens.strict = strict
    try:
        content = b"secret layer" + bytes([strict])
        made = opened(bearer.host, "a/own")
        assert Pusher(made).blob(Blob.of_bytes(content), mount_from=("b/closed",)) is How.SENT
    finally:
        tokens.strict = False
    assert made.has_blob(Digest.of(content)) == len(content)


def test_a_right_that_is_missing_is_named(
    tokens: TokenServer, bearer: RunningRegistry, config: Path, small: Finished
) -> None:
    tokens.users["me"] = PASSWORD
    tokens.grants["me", "a/readonly"] = {"pull"}
    docker_login(config, bearer.host, "me", PASSWORD)
    with pytest.raises(EnvironmentProblem, match=r"pull\+push of a/readonly") as caught:
        publish(small, bearer.host, "a/readonly")
    assert "no right" in str(caught.value.hint)
    assert all(token not in everything(caught.value) for token in tokens.issued)


def test_without_a_login_what_is_public_is_read(
    tokens: TokenServer, bearer: RunningRegistry, config: Path, tmp_path: Path
) -> None:
    tokens.users["me"] = PASSWORD
    tokens.grants["me", "a/public"] = {"pull", "push"}
    tokens.grants["", "a/public"] = {"pull"}
    docker_login(config, bearer.host, "me", PASSWORD)
    content = b"anybody may read this"
    Pusher(opened(bearer.host, "a/public")).blob(Blob.of_bytes(content))
    (config / "config.json").unlink()
    anonymous = opened(bearer.host, "a/public")
    assert anonymous.blob(Digest.of(content), len(content)) == content
    with pytest.raises(EnvironmentProblem, match=r"pull\+push of a/public") as caught:
        Pusher(anonymous).blob(Blob.of_bytes(b"and nobody writes"))
    assert "docker login" in str(caught.value.hint)


def test_an_identity_token_is_posted_and_never_in_a_url(
    tokens: TokenServer, bearer: RunningRegistry, config: Path
) -> None:
    tokens.users["me"] = PASSWORD
    tokens.grants["me", "a/identity"] = {"pull", "push"}
    config.mkdir()
    entry = {"auth": base64.b64encode(b"<token>:").decode(), "identitytoken": "refresh-me"}
    (config / "config.json").write_text(json.dumps({"auths": {bearer.host: entry}}))
    tokens.asked.clear()
    made = opened(bearer.host, "a/identity")
    Pusher(made).blob(Blob.of_bytes(b"x"))
    assert made.traffic.bytes_sent == 1, "the form is no content"
    for method, fields, authorization in tokens.asked:
        assert method == "POST"
        assert fields["grant_type"] == ["refresh_token"]
        assert fields["refresh_token"] == ["refresh-me"]
        assert fields["client_id"] == ["stackpatch"]
        assert authorization is None


def test_a_token_that_ends_in_the_middle_is_renewed(
    tokens: TokenServer, bearer: RunningRegistry, config: Path
) -> None:
    """The registry says 401 to a chunk; the upload goes on with a new token."""
    tokens.users["me"] = PASSWORD
    tokens.grants["me", "a/long"] = {"pull", "push"}
    with faulty(bearer.host) as proxy:
        docker_login(config, proxy.host, "me", PASSWORD)
        content = bytes(range(256)) * 40
        header = f'Bearer realm="{tokens.url}",service="test registry"'
        proxy.break_("PATCH", ".*", after=2, status=401, headers={"WWW-Authenticate": header})
        tokens.asked.clear()
        made = opened(proxy.host, "a/long")
        Pusher(made, chunk=1024).blob(Blob.of_bytes(content))
        assert proxy.count("POST", ".*") == 2, "one without a token, one with: no second upload"
        assert made.blob(Digest.of(content), len(content)) == content
    assert len(tokens.asked) == 3


def test_a_token_that_has_ended_is_not_offered_any_more(
    tokens: TokenServer, bearer: RunningRegistry, config: Path
) -> None:
    tokens.users["me"] = PASSWORD
    tokens.grants["me", "a/short"] = {"pull", "push"}
    docker_login(config, bearer.host, "me", PASSWORD)
    tokens.lives = 1
    try:
        tokens.asked.clear()
        made = opened(bearer.host, "a/short")
        made.head("t")
        time.sleep(1.0)
        made.head("t")
        assert len(tokens.asked) == 2
    finally:
        tokens.lives = 300


@pytest.mark.parametrize(
    "realm",
    ["http://tokens.example.com/t", "https://me:x@host/t", "ftp://127.0.0.1/t", "", "nonsense"],
)
def test_no_login_goes_to_a_token_server_that_is_not_safe(
    bearer: RunningRegistry, config: Path, realm: str
) -> None:
    with faulty(bearer.host) as proxy:
        docker_login(config, proxy.host, "me", PASSWORD)
        header = {"WWW-Authenticate": f'Bearer realm="{realm}",service="s"'}
        proxy.break_(".*", "/v2/.+", times=None, status=401, headers=header)
        with pytest.raises(EnvironmentProblem, match="as its token server") as caught:
            opened(proxy.host, "a/b").head("t")
        assert "no login is sent there" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"<html>", 200),
        (b"[]", 200),
        (b'{"token": ""}', 200),
        (b'{"token": "a\\nb"}', 200),
        (b'{"token": 3}', 200),
        (b"", 500),
        (b"", 403),
    ],
)
def test_a_token_server_that_answers_nonsense_is_told(
    bearer: RunningRegistry, config: Path, body: bytes, status: int
) -> None:
    with faulty(bearer.host) as proxy:
        proxy.break_("GET", "/token.*", times=None, status=status, body=body)
        header = {"WWW-Authenticate": f'Bearer realm="http://{proxy.host}/token"'}
        proxy.break_(".*", "/v2/.+", times=None, status=401, headers=header)
        with pytest.raises(EnvironmentProblem) as caught:
            opened(proxy.host, "a/b").head("t")
        assert proxy.host in caught.value.message


def test_a_redirect_to_another_host_carries_no_login(
    basic: RunningRegistry, config: Path, tmp_path: Path
) -> None:
    """As registries do that keep blobs in an object store."""
    content = b"in the store" * 1000
    with running_registry(tmp_path / "store") as store, faulty(store.host) as there:
        store.put_blob("a/blob", content)
        with faulty(basic.host) as proxy:
            docker_login(config, proxy.host, "me", PASSWORD)
            made = opened(proxy.host, "a/blob")
            Pusher(made).blob(Blob.of_bytes(content))
            target = f"http://{there.host}/v2/a/blob/blobs/{Digest.of(content)}?signature=s3cr3t"
            proxy.break_("GET", ".*/blobs/.*", times=None, status=307, headers={"Location": target})
            assert made.blob(Digest.of(content), len(content)) == content
            assert "Authorization" in proxy.asked[-1].headers
        assert len(there.asked) == 1
        assert "Authorization" not in there.asked[0].headers
        # A signature in a query is a secret too.
        there.break_(".*", ".*", times=None, status=418)
        with faulty(basic.host) as proxy:
            docker_login(config, proxy.host, "me", PASSWORD)
            proxy.break_("GET", ".*/blobs/.*", times=None, status=307, headers={"Location": target})
            with pytest.raises(EnvironmentProblem) as caught:
                opened(proxy.host, "a/blob").blob(Digest.of(content), len(content))
        assert "s3cr3t" not in everything(caught.value)


def test_a_netrc_file_is_not_a_registry_login(
    basic: RunningRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login me password {PASSWORD}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with faulty(basic.host) as proxy:
        with pytest.raises(EnvironmentProblem, match="wants a login"):
            opened(proxy.host, "a/b").head("t")
        assert not any("Authorization" in one.headers for one in proxy.asked)


@pytest.fixture(scope="module")
def secure(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[RunningRegistry, dict[str, Path]]]:
    """A registry with a certificate of a CA that nobody knows."""
    folder = tmp_path_factory.mktemp("secure")
    made = make_certificates(folder / "tls")
    pair = (made["certificate"], made["key"])
    with running_registry(folder / "r", certificate=pair) as running:
        yield running, made


def test_a_certificate_that_nobody_knows_is_refused(
    secure: tuple[RunningRegistry, dict[str, Path]],
) -> None:
    with pytest.raises(EnvironmentProblem, match=r"certificate of .* is not accepted") as caught:
        opened(secure[0].host, "a/b").head("t")
    assert "REQUESTS_CA_BUNDLE" in str(caught.value.hint)


@pytest.mark.parametrize("how", ["bundle", "certs.d"])
def test_a_ca_of_ones_own_is_believed(
    secure: tuple[RunningRegistry, dict[str, Path]],
    config: Path,
    small: Finished,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    registry, made = secure
    if how == "bundle":
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(made["ca.crt"]))
    else:
        place = config / "certs.d" / registry.host
        place.mkdir(parents=True)
        (place / "ca.crt").write_bytes(made["ca.crt"].read_bytes())
    done = publish(small, registry.host, f"tls/{how.replace('.', '')}")
    assert done.moved


def test_plain_http_is_spoken_only_with_this_machine(
    basic: RunningRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls: list[str] = []

    def request(self: Any, method: str, url: str, *_: Any) -> Any:
        urls.append(url)
        msg = "enough"
        raise EnvironmentProblem(msg)

    monkeypatch.setattr("stackpatch.registry.wire.Wire.request", request)
    for host in ("registry.example.com", "10.0.0.1:5000", "ghcr.io"):
        with pytest.raises(EnvironmentProblem):
            opened(host, "a/b").head("t")
    assert all(url.startswith("https://") for url in urls)
    assert len(urls) == 3
    urls.clear()
    monkeypatch.setenv("STACKPATCH_PLAIN_HTTP", "other.example.com, 10.0.0.1:5000")
    with pytest.raises(EnvironmentProblem):
        opened("10.0.0.1:5000", "a/b").head("t")
    assert urls[0].startswith("http://")


def test_a_base_in_a_registry_with_a_login_is_copied_with_that_login(
    basic: RunningRegistry, config: Path, tmp_path: Path
) -> None:
    """Two registries, two logins in one file."""
    from tests.registries import running_registry as another
    from tests.stack import make_stack

    from stackpatch.artefacts.base import open_base
    from stackpatch.artefacts.build import build
    from stackpatch.cli.images import opener
    from stackpatch.model.arch import parse_arch
    from stackpatch.registry.finished import open_finished

    with another(tmp_path / "r", auth=htpasswd(tmp_path / "h", "you", "other-password")) as other:
        config.mkdir(exist_ok=True)
        auths = {
            basic.host: {"auth": base64.b64encode(f"me:{PASSWORD}".encode()).decode()},
            other.host: {"auth": base64.b64encode(b"you:other-password").decode()},
        }
        (config / "config.json").write_text(json.dumps({"auths": auths}))
        source = opened(other.host, "base/image")
        pusher = Pusher(source)
        layout = base_layout(tmp_path / "base")
        (entry,) = json.loads((layout / "index.json").read_bytes())["manifests"]
        manifest = (layout / "blobs/sha256" / entry["digest"][7:]).read_bytes()
        parsed = json.loads(manifest)
        for one in [parsed["config"], *parsed["layers"]]:
            path = layout / "blobs/sha256" / one["digest"][7:]
            pusher.blob(Blob.of_file(path, Digest.parse(one["digest"]), one["size"]))
        pusher.manifest(manifest, entry["mediaType"], "v1")
        stack = make_stack(tmp_path / "wheel")
        base = open_base(f"{other.host}/base/image:v1", parse_arch("sm121"), remote=opener())
        plan = stack.plan(base=base)
        result = build(plan, base, stack.prepared, out=tmp_path / "dist")
        done = publish(open_finished(result.folder, plan.inputs.json()), basic.host, "a/copied")
    assert done.base_bytes_read == sum(one["size"] for one in parsed["layers"])
