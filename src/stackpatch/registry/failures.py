"""What went wrong with a request, in our words: for a person, and for whoever may try again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from stackpatch.errors import EnvironmentProblem
from stackpatch.sources.transport import Interrupted, innermost

if TYPE_CHECKING:
    import requests

    from stackpatch.registry.auth import Secrets


def translated(error: requests.RequestException, host: str, secrets: Secrets) -> Exception:
    """Interrupted for what may work the next time, EnvironmentProblem for the rest."""
    import requests

    why = secrets.hide(innermost(error))
    if isinstance(error, requests.exceptions.SSLError):
        text = str(error)
        if "CERTIFICATE_VERIFY_FAILED" not in text and "match" not in text:
            # No TLS on that port, or a handshake that was cut.
            return Interrupted(f"TLS with {host} fails ({why})")
        msg = f"the certificate of {host} is not accepted: {why}"
        hint = f"name your CA in REQUESTS_CA_BUNDLE, or in /etc/docker/certs.d/{host}/ca.crt"
        return EnvironmentProblem(msg, hint=hint)
    if isinstance(error, requests.exceptions.ProxyError):
        msg = f"the proxy on the way to {host} does not work: {why}"
        return EnvironmentProblem(msg, hint="look at HTTPS_PROXY and NO_PROXY")
    if isinstance(error, (requests.ConnectionError, requests.Timeout)):
        return Interrupted(f"{host} cannot be reached ({why})")
    return EnvironmentProblem(f"cannot ask {host}: {why}")


def stated(content: bytes) -> str:
    """The errors of a registry's JSON body, `CODE message; …`; nothing for another body."""
    try:
        listed = json.loads(content)["errors"]
        words = "; ".join(f"{one['code']} {one.get('message', '')}".strip() for one in listed)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    return " ".join(words.split())
