"""BuildKit and buildah for real: the same bytes each time, or a refusal that says why."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import pytest
from tests.engine import Engine, engine
from tests.engine_builds import (
    AMD64,
    DOCKERFILE,
    EPOCH,
    base_in_folder,
    every_byte,
    own_files,
    request,
)
from tests.images import LayoutMaker, tar_layer
from tests.registries import htpasswd, running_registry

from stackpatch.artefacts.engines import EngineBase, build_image
from stackpatch.artefacts.layout import Layout
from stackpatch.errors import EnvironmentProblem, FindingError, InputError

if TYPE_CHECKING:
    from pathlib import Path

Name = Literal["buildx", "buildah"]
BOTH = pytest.mark.parametrize("name", ["buildx", "buildah"])
HUSHED = "hunter2-and-a-bit-more"


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Engine:
    found = engine()
    found.use(monkeypatch)
    return found


def tree(folder: Path) -> dict[str, tuple[int, str]]:
    return {
        path.relative_to(folder).as_posix(): (
            path.stat().st_mode,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(folder.rglob("*"))
    }


@BOTH
def test_two_folders_two_times_and_another_umask_give_the_same_bytes(
    real: Engine, tmp_path: Path, name: Name
) -> None:
    made = []
    for number, umask in enumerate((0o022, 0o077)):
        one = request(real, tmp_path / f"at{number}", engine=name)
        before = os.umask(umask)
        try:
            build_image(one, tmp_path / f"at{number}" / "image")
        finally:
            os.umask(before)
        made.append(tree(tmp_path / f"at{number}" / "image"))
        time.sleep(1.1)  # another second on the clock
    assert made[0] == made[1]


@BOTH
def test_the_digest_does_not_depend_on_where_the_base_lies(
    real: Engine, tmp_path: Path, name: Name
) -> None:
    one = request(real, tmp_path / "a", engine=name)
    pulled = build_image(one, tmp_path / "a" / "image")
    local = build_image(replace(one, base=base_in_folder(real)), tmp_path / "b" / "image")
    assert pulled.digest == local.digest
    base = one.base.image.layers[0]
    # A registry keeps its base; a folder's is copied, as the base has it.
    assert not Layout.open(tmp_path / "a" / "image").has(base)
    assert Layout.open(tmp_path / "b" / "image").has(base)
    assert local.layers[0].digest == base.digest


@BOTH
def test_others_can_read_what_was_built(real: Engine, tmp_path: Path, name: Name) -> None:
    one = request(real, tmp_path, engine=name, base=base_in_folder(real), env={"A": "b c"})
    image = build_image(one, tmp_path / "image", ref_name="demo")
    said = real.run("skopeo", "inspect", f"oci:{tmp_path}/image:demo")
    assert str(image.digest) in said
    there = f"{real.registry}/engines-{name}:{os.getpid()}"
    copied = (f"oci:{tmp_path}/image:demo", f"docker://{there}")
    real.run("skopeo", "copy", "--dest-tls-verify=false", *copied)
    ran = real.run(
        *("docker", "run", "--rm", "--network=none", there),
        *("sh", "-c", "cat /srv/f /srv/two; id -u; echo $A; stat -c %Y /srv/two /srv/now"),
    )
    assert ran.splitlines() == ["hi", "two", "10001", "b c", str(EPOCH), str(EPOCH)]
    # crane reads layers in a gzip frame only.
    real.run("crane", "validate", "--insecure", "--remote", there)
    real.run("docker", "rmi", there)


NOTES = (
    *('a "quoted" b', "two\nlines\n", "it's $HOME `id` $(id) \\n", "  blanks  ", "ü€", "a,b=c;d"),
    *("", "--push", "#", "tab\tand\rreturn", "%s\\", "x" * 5000),
)


@BOTH
def test_build_arguments_arrive_as_they_were_given(
    real: Engine, tmp_path: Path, name: Name
) -> None:
    args = {f"NOTE{number}": note for number, note in enumerate(NOTES)}
    lines = [f"ARG {arg}\nRUN printf '%s' \"${arg}\" > /srv/{arg}" for arg in args]
    text = "\n".join(["ARG BASE", "FROM ${BASE}", *lines, ""])
    build_image(request(real, tmp_path, text, engine=name, args=args), tmp_path / "image")
    files = own_files(tmp_path / "image")
    assert {arg: files[f"srv/{arg}"].decode() for arg in args} == args


@BOTH
def test_a_secret_is_there_while_a_step_runs_and_nowhere_afterwards(
    real: Engine, tmp_path: Path, name: Name
) -> None:
    secret = tmp_path / "with, comma" / "ca.pem"
    secret.parent.mkdir()
    secret.write_text(f"{HUSHED}\n")
    text = (
        "ARG BASE\nFROM ${BASE}\n"
        "RUN --mount=type=secret,id=ca wc -c < /run/secrets/ca > /srv/size && "
        "echo it says $(cat /run/secrets/ca)\n"
    )
    shown: list[str] = []
    one = request(real, tmp_path / "build", text, engine=name, secrets={"ca": secret})
    build_image(one, tmp_path / "build" / "image", progress=shown.append)
    files = own_files(tmp_path / "build" / "image")
    assert files["srv/size"].strip() == str(len(HUSHED) + 1).encode()
    assert [line for line in shown if "it says ***" in line]
    assert not [line for line in shown if HUSHED in line]
    assert not [content for content in every_byte(tmp_path / "build") if HUSHED.encode() in content]


@BOTH
def test_a_failing_step_shows_what_it_said_and_leaves_nothing(
    real: Engine, tmp_path: Path, name: Name
) -> None:
    text = "ARG BASE\nFROM ${BASE}\nRUN echo the compiler says no; echo to stderr >&2; exit 7\n"
    one = request(real, tmp_path / "build", text, engine=name)
    with pytest.raises(FindingError) as caught:
        build_image(one, tmp_path / "out" / "image")
    assert "the compiler says no" in caught.value.message
    assert "to stderr" in caught.value.message
    assert "status 7" in caught.value.message
    assert str(one.log) in str(caught.value.hint)
    assert "the compiler says no" in one.log.read_text()
    assert not list((tmp_path / "out").iterdir())


@BOTH
def test_a_dockerfile_that_cannot_be_read_is_named(
    real: Engine, tmp_path: Path, name: Name
) -> None:
    one = request(real, tmp_path / "build", "ARG BASE\nFROM ${BASE}\nRUM true\n", engine=name)
    with pytest.raises((InputError, EnvironmentProblem), match=r"(?i)unknown instruction"):
        build_image(one, tmp_path / "out" / "image")


@BOTH
def test_a_stage_that_stands_on_something_else_is_refused(
    real: Engine, tmp_path: Path, name: Name
) -> None:
    text = "ARG BASE\nFROM ${BASE} AS one\nRUN true\nFROM scratch\nCOPY --from=one /etc /etc\n"
    one = request(real, tmp_path / "build", text, engine=name)
    with pytest.raises(EnvironmentProblem, match="does not stand on"):
        build_image(one, tmp_path / "out" / "image")
    assert not list((tmp_path / "out").iterdir())


@BOTH
def test_no_step_reaches_a_network(real: Engine, tmp_path: Path, name: Name) -> None:
    text = f"ARG BASE\nFROM ${{BASE}}\nRUN wget -q -O /srv/x http://{real.registry}/v2/\n"
    with pytest.raises(FindingError, match=r"refused|unreachable"):
        build_image(request(real, tmp_path / "a", text, engine=name), tmp_path / "a" / "image")
    allowed = request(real, tmp_path / "b", text, engine=name, network="host")
    build_image(allowed, tmp_path / "b" / "image")


@BOTH
def test_a_base_that_is_not_there_is_the_environment(
    real: Engine, tmp_path: Path, name: Name
) -> None:
    there = request(real, tmp_path / "build", engine=name)
    maker = LayoutMaker(tmp_path / "other")
    other = Layout.open(maker.write(maker.image([tar_layer({"a": b"b"})]))).image(AMD64)
    gone = EngineBase(other, f"{real.registry}/no-such-base")
    with pytest.raises(EnvironmentProblem, match="no-such-base"):
        build_image(replace(there, base=gone), tmp_path / "out" / "image")
    assert not list((tmp_path / "out").iterdir())


@BOTH
def test_a_registry_that_wants_a_login_is_told_with_the_login_that_counts(
    real: Engine, tmp_path: Path, name: Name
) -> None:
    """The base's documents may be in our cache: then the engine is the first to be asked."""
    there = request(real, tmp_path / "build", engine=name)
    auth = htpasswd(tmp_path / "auth", "me", "pass-word-of-mine")
    maker = LayoutMaker(tmp_path / "other")
    described = maker.image([tar_layer({"a": os.urandom(40)})])  # that no engine has
    layout = maker.write(described)
    with running_registry(tmp_path / "registry", auth=auth) as registry:
        private = f"{registry.host}/private"
        login = ("--dest-tls-verify=false", "--dest-creds", "me:pass-word-of-mine")
        real.run("skopeo", "copy", *login, f"oci:{layout}", f"docker://{private}:1")
        base = EngineBase(Layout.open(layout).image(AMD64), private)
        with pytest.raises(EnvironmentProblem, match="was not let into a registry") as caught:
            build_image(replace(there, base=base), tmp_path / "out" / "image")
    assert private in caught.value.message
    assert "docker login" in str(caught.value.hint)
    assert not list((tmp_path / "out").iterdir())


@BOTH
def test_a_full_disk_is_said_to_be_one(real: Engine, tmp_path: Path, name: Name) -> None:
    small = tmp_path / "small"
    small.mkdir()
    text = "ARG BASE\nFROM ${BASE}\nRUN head -c 30000000 /dev/urandom > /srv/large\n"
    one = request(real, tmp_path / "build", text, engine=name)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small], check=True)
    try:
        with pytest.raises(EnvironmentProblem, match="no space left"):
            build_image(one, small / "image")
        assert not list(small.iterdir())
    finally:
        subprocess.run(["umount", small], check=True)


def test_the_two_engines_give_the_same_files(real: Engine, tmp_path: Path) -> None:
    found = []
    for name in ("buildx", "buildah"):
        one = request(real, tmp_path / name, DOCKERFILE, engine=name, args={"NOTE": "same"})
        build_image(one, tmp_path / name / "image")
        files = own_files(tmp_path / name / "image")
        found.append({path: content for path, content in files.items() if path.startswith("srv/")})
    assert found[0] == found[1]
