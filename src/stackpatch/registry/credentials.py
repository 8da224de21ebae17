"""A person's logins, where docker and podman keep them: config files and credential helpers.

Formats: docker's config.json (`auths`, `credsStore`, `credHelpers`), containers-auth.json(5),
and the helpers' protocol (a program that reads a host on stdin and prints JSON). Only read, never
written. A value here has no text form that shows its secrets.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackpatch import proc
from stackpatch.errors import EnvironmentProblem
from stackpatch.registry.reference import HUB

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stackpatch.registry.reference import Reference

# Docker Hub under the names that config files have for it; the first is what `docker login` writes.
_HUB_KEY = "https://index.docker.io/v1/"
_HUB_KEYS = (_HUB_KEY, "index.docker.io", HUB, "registry-1.docker.io")
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HELPER_SECONDS = 30.0
_IDENTITY = "<token>"  # the user name by which a helper says that its secret is a refresh token
_LARGEST = 8 << 20


@dataclass(frozen=True, slots=True)
class Credentials:
    """A login. origin: the file or helper it is from.

    password: with the user name, for Basic. identity: a refresh token, for OAuth2.
    registry_token: a Bearer token as it is.
    """

    origin: str
    username: str = ""
    password: str | None = field(default=None, repr=False)
    identity: str | None = field(default=None, repr=False)
    registry_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Found:
    """What looking for a login gave. trouble: what kept us from finding one, for a message."""

    credentials: Credentials | None = None
    trouble: str | None = None


def config_files() -> tuple[Path, ...]:
    """Where logins are looked for: $REGISTRY_AUTH_FILE, docker's file, podman's files."""
    named = os.environ.get("REGISTRY_AUTH_FILE")
    home = Path.home()
    docker = Path(os.environ.get("DOCKER_CONFIG") or home / ".docker")
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    found = [docker / "config.json"]
    if runtime:
        found.append(Path(runtime) / "containers" / "auth.json")
    found.append(settings / "containers" / "auth.json")
    return (Path(named), *found) if named else tuple(found)


def find_credentials(reference: Reference) -> Found:
    """The login for the reference's repository: the first file that has one.

    A file or a helper that cannot be read is no error here: the registry may want no login. What
    was wrong is told when it does.
    """
    trouble: list[str] = []
    for path in config_files():
        try:
            config = _read(path)
        except EnvironmentProblem as error:
            trouble.append(error.message)
            continue
        found = _in_config(config, reference, path, trouble)
        if found is not None:
            return Found(found)
    return Found(None, "; ".join(trouble) or None)


def _read(path: Path) -> dict[str, Any]:
    """The file's JSON object; empty where there is no file."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise EnvironmentProblem(msg) from error
    try:
        config = json.loads(content) if content.strip() else {}
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        msg = f"{path} holds no JSON object"  # not what it holds: that may be a secret
        raise EnvironmentProblem(msg)
    return config


def _in_config(
    config: Mapping[str, Any], reference: Reference, path: Path, trouble: list[str]
) -> Credentials | None:
    helpers = config.get("credHelpers")
    for key in _helper_keys(reference):
        name = helpers.get(key) if isinstance(helpers, dict) else None
        if name:
            return _from_helper(name, key, path, trouble)
    store = config.get("credsStore")
    if store:
        server = _HUB_KEY if reference.host == HUB else reference.host
        found = _from_helper(store, server, path, trouble)
        if found is not None:
            return found
    auths = config.get("auths")
    if isinstance(auths, dict):
        for key in _auth_keys(auths, reference):
            found = _from_entry(auths[key], f"{path} ({key})", trouble)
            if found is not None:
                return found
    return None


def _helper_keys(reference: Reference) -> tuple[str, ...]:
    return _HUB_KEYS if reference.host == HUB else (reference.host,)


def _auth_keys(auths: Mapping[str, Any], reference: Reference) -> list[str]:
    """The entries for the repository, the most exact first (podman allows `host/name`)."""
    full = f"{reference.host}/{reference.repository}"
    fitting = []
    for key in auths:
        bare = re.sub(r"^https?://", "", key).rstrip("/")
        place = re.sub(r"/v[12]$", "", bare)
        if place in {"index.docker.io", "registry-1.docker.io"}:
            place = HUB
        if place == full or full.startswith(f"{place}/"):
            fitting.append((-len(place), key))
    return [key for _, key in sorted(fitting)]


def _from_entry(entry: Any, origin: str, trouble: list[str]) -> Credentials | None:
    if not isinstance(entry, dict):
        return None
    text = {key: value for key, value in entry.items() if isinstance(value, str) and value}
    identity, token = text.get("identitytoken"), text.get("registrytoken")
    username, password = text.get("username", ""), text.get("password")
    if encoded := text.get("auth"):
        try:
            decoded = base64.b64decode(encoded, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            trouble.append(f"{origin}: `auth` is not base64")
            return None
        username, colon, password = decoded.rstrip("\0").partition(":")
        if not colon:
            trouble.append(f"{origin}: `auth` is not base64 of USER:PASSWORD")
            return None
    if not (password or identity or token):
        return None  # what docker leaves behind when a helper holds the secret
    return Credentials(origin, username, password or None, identity, token)


def _from_helper(name: Any, server: str, path: Path, trouble: list[str]) -> Credentials | None:
    """Ask `docker-credential-NAME`. Nothing that it printed is ever repeated."""
    if not isinstance(name, str) or not _HELPER.fullmatch(name):
        trouble.append(f"{path}: a credential helper's name is a word, not {name!r}")
        return None
    program = f"docker-credential-{name}"
    try:
        done = proc.run(
            [program, "get"], stdin=server.encode(), timeout=_HELPER_SECONDS, check=False
        )
    except EnvironmentProblem as error:
        trouble.append(f"{path} names {program}: {error.message}")
        return None
    if done.status != 0:
        if b"credentials not found" not in done.stdout.lower():
            trouble.append(f"{program} ended with status {done.status} for {server}")
        return None
    try:
        said = json.loads(done.stdout)
        username, secret = said["Username"], said["Secret"]
    except (ValueError, KeyError, TypeError):
        username = secret = None
    if not isinstance(username, str) or not isinstance(secret, str) or not secret:
        trouble.append(f"{program} answered something else than a login for {server}")
        return None
    origin = f"{program} ({path})"
    if username == _IDENTITY:
        return Credentials(origin, identity=secret)
    return Credentials(origin, username, secret)
