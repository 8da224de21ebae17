"""Image references: `host[:port]/repository[:tag][@digest]`, read as docker reads them.

The grammar is the distribution project's: the first component is a host when it has a dot or a
colon, or is `localhost`; without one the reference is Docker Hub's, whose official images live
below `library/`. Hosts are written in small letters, repositories must be.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace
from typing import Self

from stackpatch.errors import InputError
from stackpatch.model.digest import Digest

HUB = "docker.io"
# The name that people write, and the host that speaks the protocol.
_API_HOSTS = {HUB: "registry-1.docker.io"}
_HUB_NAMES = frozenset({HUB, "index.docker.io", "registry-1.docker.io"})
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:]+\])(?::[0-9]{{1,5}})?")
_LONGEST = 255  # characters of host and repository together, as distribution has it
_FORM = "want HOST[:PORT]/REPOSITORY[:TAG] or …@sha256:…, such as ghcr.io/me/flashinfer:0.6.3"


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository in a registry, and maybe a tag and a digest in it.

    host: with its port, in small letters; `docker.io` for Docker Hub. `str()` is the full form.
    """

    host: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str, *, what: str = "the image reference") -> Self:
        """Raises InputError that says what is wrong; what: the option that it came from."""
        rest, digest = _cut_digest(text, what)
        rest, tag = _cut_tag(rest, text, what)
        host, repository = _cut_host(rest)
        if not repository:
            raise _wrong(text, what, "it names no repository")
        if not _HOST.fullmatch(host) or not _port_is_one(host):
            raise _wrong(text, what, f"{host!r} is no host name")
        _check_repository(repository, text, what)
        if host in _HUB_NAMES:
            host = HUB
            if "/" not in repository:
                repository = f"library/{repository}"
        if len(host) + 1 + len(repository) > _LONGEST:
            raise _wrong(text, what, f"it has more than {_LONGEST} characters")
        return cls(host, repository, tag, digest)

    @property
    def name(self) -> str:
        """Host and repository, without tag and digest."""
        return f"{self.host}/{self.repository}"

    @property
    def api_host(self) -> str:
        """The host, with its port, that speaks the distribution protocol."""
        return _API_HOSTS.get(self.host, self.host)

    @property
    def loopback(self) -> bool:
        """Whether the host is this machine by its name or number: plain HTTP is allowed there."""
        return is_loopback(self.host)

    def at(self, digest: Digest) -> Self:
        """The same repository, by digest alone."""
        return replace(self, tag=None, digest=digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}{f'@{self.digest}' if self.digest else ''}"


def is_loopback(host: str) -> bool:
    """Whether `host[:port]` is localhost, in 127.0.0.0/8, or ::1."""
    bare = host_name(host)
    if bare == "localhost":
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False


def host_name(host: str) -> str:
    """`host[:port]` without the port and without the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def looks_like_reference(text: str) -> bool:
    """Whether the text can only be meant as an image in a registry, not as a folder.

    `host/name`, where the host has a dot inside, a port, or is localhost; a path starts with a
    slash or a dot.
    """
    first, slash, rest = text.partition("/")
    if not slash or not rest or first.startswith((".", "~")) or not first:
        return False
    return first == "localhost" or ":" in first or "." in first


def _cut_digest(text: str, what: str) -> tuple[str, Digest | None]:
    if re.search(r"[\s\x00-\x1f\x7f]", text):
        raise _wrong(text, what, "it holds a space or a control character")
    scheme, sign, bare = text.partition("://")
    if sign:
        hint = f"write it without {scheme}://, as {bare}"
        msg = f"{what} {text!r} is no image reference: it starts with {scheme}://"
        raise InputError(msg, hint=hint)
    rest, at, stated = text.partition("@")
    if not at:
        return rest, None
    if "/" in stated:  # the message must not repeat what may be a password
        msg = f"{what} holds an @ before its host"
        hint = f"credentials come from `docker login`, never from here; {_FORM}"
        raise InputError(msg, hint=hint)
    if not stated.startswith("sha256:"):
        raise _wrong(text, what, f"only sha256 digests are read, not {stated!r}")
    try:
        return rest, Digest.parse(stated)
    except ValueError:
        raise _wrong(text, what, f"{stated!r} is not sha256: and 64 small hex digits") from None


def _cut_tag(rest: str, text: str, what: str) -> tuple[str, str | None]:
    head, colon, tag = rest.rpartition(":")
    # Without a repository the colon starts a port, or a tag of a Hub image: docker takes the tag.
    if not colon or "/" in tag or tag.endswith("]"):
        return rest, None
    if not _TAG.fullmatch(tag):
        why = "of up to 128 letters, digits, '_', '.' and '-', starting with none of the last two"
        hint = None
        if "+" in tag:
            hint = f"a tag cannot hold a plus sign; write {tag.replace('+', '_')}"
        raise _wrong(text, what, f"a tag is {why}, not {tag!r}", hint)
    return head, tag


def _cut_host(rest: str) -> tuple[str, str]:
    first, slash, behind = rest.partition("/")
    if slash and (first.lower() == "localhost" or "." in first or ":" in first):
        return first.lower(), behind
    return HUB, rest


def _check_repository(repository: str, text: str, what: str) -> None:
    if repository != repository.lower():
        hint = f"write {text.replace(repository, repository.lower(), 1)}"
        why = f"a repository name has no capitals, {repository!r} has"
        raise _wrong(text, what, why, hint)
    for component in repository.split("/"):
        if not _COMPONENT.fullmatch(component):
            why = "is small letters and digits, with '.', '_', '__' or '-' between them"
            shown = repr(component) if component else "an empty one"
            raise _wrong(text, what, f"each part of a repository name {why}, not {shown}")


def _port_is_one(host: str) -> bool:
    port = host.rpartition("]")[2].partition(":")[2]
    return not port or 0 < int(port) < 65536


def _wrong(text: str, what: str, why: str, hint: str | None = None) -> InputError:
    shown = text if len(text) <= 300 else f"{text[:300]}…"
    msg = f"{what} {shown!r} is no image reference: {why}"
    return InputError(msg, hint=hint or _FORM)
