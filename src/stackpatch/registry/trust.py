"""How a registry's host is trusted: certificates where docker and podman look, hosts without TLS.

`certs.d/HOST[:PORT]/` holds a CA as `*.crt` and a client's pair as `NAME.cert`, `NAME.key`. Where
there is none, requests decides: REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, else its own bundle.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Trust:
    """authority: a file of CA certificates. client: our certificate and its key, as files."""

    authority: str | None = None
    client: tuple[str, str] | None = None


def folders() -> tuple[Path, ...]:
    """Where certificates are looked for, first one first."""
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    docker = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    return (
        docker / "certs.d",
        settings / "containers" / "certs.d",
        Path("/etc/containers/certs.d"),
        Path("/etc/docker/certs.d"),
    )


def trusted(host: str) -> Trust:
    """What the folders hold for `host[:port]`; the first that has any of it counts."""
    for folder in folders():
        place = folder / host
        try:
            names = sorted(os.listdir(place))  # noqa: PTH208 - the folder may not be there
        except OSError:
            continue
        authority = next((name for name in names if name.endswith(".crt")), None)
        pair = next(
            (
                (str(place / name), str(place / f"{name[:-5]}.key"))
                for name in names
                if name.endswith(".cert") and f"{name[:-5]}.key" in names
            ),
            None,
        )
        if authority or pair:
            return Trust(str(place / authority) if authority else None, pair)
    return Trust()


def plain_hosts() -> frozenset[str]:
    """Hosts beside loopback that the person allows to be asked without TLS.

    $STACKPATCH_PLAIN_HTTP: `host[:port]`, several with commas between.
    """
    named = os.environ.get("STACKPATCH_PLAIN_HTTP", "")
    return frozenset(one.strip().lower() for one in named.split(",") if one.strip())
