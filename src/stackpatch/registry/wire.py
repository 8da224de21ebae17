"""Single requests on the wire: no redirect followed, no status judged, the answer's body unread."""

from __future__ import annotations

import contextlib
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackpatch import __version__
from stackpatch.errors import EnvironmentProblem
from stackpatch.registry.failures import translated
from stackpatch.registry.patience import counted
from stackpatch.registry.reference import is_loopback
from stackpatch.registry.trust import trusted
from stackpatch.sources.transport import Interrupted, innermost

if TYPE_CHECKING:  # requests is imported when something is really asked for: it takes 0.1 s
    from collections.abc import Mapping

    import requests

    from stackpatch.registry.auth import Secrets
    from stackpatch.registry.patience import Limits, Traffic

# None takes out what the environment says.
_NO_PROXY: Any = {"http": None, "https": None, "all": None}


@dataclass(slots=True)
class Wire:
    """Connections that are kept open. traffic: counts what goes over them."""

    limits: Limits
    secrets: Secrets
    traffic: Traffic
    _http: requests.Session | None = None

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Any = None,
        authorization: str | None = None,
    ) -> requests.Response:
        """Send it. body: bytes, or something with `read` and `__len__`.

        Raises Interrupted where the host cannot be reached, EnvironmentProblem for a certificate.
        """
        import requests

        self.traffic.requests += 1
        host = urllib.parse.urlsplit(url).netloc
        trust = trusted(host)
        silence = self.limits.read if method in {"GET", "HEAD"} else self.limits.settle
        try:
            return self._client().request(
                method,
                url,
                headers=dict(headers),
                data=counted(body, self.traffic) if body is not None else None,
                # A callable of our own also keeps requests from looking into ~/.netrc.
                auth=_Header(authorization),
                allow_redirects=False,
                stream=True,
                timeout=(self.limits.connect, silence),
                # True lets requests look at REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE.
                verify=trust.authority or True,
                cert=trust.client,
                # No proxy leads to this machine, whatever HTTP_PROXY says.
                proxies=_NO_PROXY if is_loopback(host) else None,
            )
        except requests.RequestException as error:
            raise translated(error, host, self.secrets) from error
        except OSError as error:  # a reset while we were sending
            reason = f"the connection to {host} broke off ({innermost(error)})"
            raise Interrupted(self.secrets.hide(reason)) from error

    def speaks_plain(self, host: str) -> bool:
        """Whether the host answers without TLS. No login is offered. Raises Interrupted."""
        try:
            response = self.request("GET", f"http://{host}/v2/", {})
        except Interrupted:
            if self._accepts_tls(host):
                return False
            raise
        with contextlib.closing(response):
            # 400 without the API's header is what Go says to plain words on a TLS port.
            ours = "Docker-Distribution-Api-Version" in response.headers
            return response.status_code != 400 or ours

    def _accepts_tls(self, host: str) -> bool:
        try:
            self.request("GET", f"https://{host}/v2/", {}).close()
        except Interrupted:
            return False
        except EnvironmentProblem:  # a certificate that is not accepted: TLS all the same
            return True
        return True

    def _client(self) -> requests.Session:
        import requests
        from requests.adapters import HTTPAdapter

        if self._http is None:
            self._http = requests.Session()
            self._http.headers["User-Agent"] = f"stackpatch/{__version__}"
            adapter = HTTPAdapter()
            # http.client hands out 16 KiB pieces otherwise.
            adapter.init_poolmanager(10, 10, blocksize=1 << 18)
            for scheme in ("http://", "https://"):
                self._http.mount(scheme, adapter)
        return self._http


class _Header:
    """An Authorization header, or none, for requests."""

    def __init__(self, value: str | None) -> None:
        self.value = value

    def __call__(self, request: Any) -> Any:
        if self.value is not None:
            request.headers["Authorization"] = self.value
        return request
