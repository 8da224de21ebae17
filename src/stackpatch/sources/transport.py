"""Bytes from a URL: http and file, with pip's settings, and one idea of what may be retried.

Credentials are taken out of the URLs at the door and sent only to the host they were given for,
so no message, log or redirect can carry them.
"""

from __future__ import annotations

import email.utils
import errno
import random
import re
import time
import urllib.parse
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from stackpatch import __version__
from stackpatch.errors import EnvironmentProblem

if TYPE_CHECKING:  # requests is imported when something is really asked for: it takes 0.1 s
    from collections.abc import Callable, Iterator, Mapping

    import requests

    from stackpatch.sources.pipconfig import IndexSettings

_T = TypeVar("_T")
_CHUNK = 1 << 18
_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_LONGEST_PAUSE = 60.0
_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")
_QUERY = re.compile(r"(?<=\?)[^\s#'\")]+")


class Interrupted(Exception):  # noqa: N818 - the wish to try again, caught where that is done
    """Something that may work the next time. after: seconds that the server asked us to wait."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = after


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: 200, 206, 404, 410 or 416; the rest was raised.

    url: after redirects, without credentials. chunks: the body, as sent for binary, decoded for
    text; iterating may raise Interrupted.
    """

    status: int
    url: str
    headers: Mapping[str, str]
    chunks: Iterator[bytes]


def redact(text: str) -> str:
    """Without the credentials of URLs in it, and without queries, which may be signatures."""
    return _QUERY.sub("…", _USERINFO.sub("****@", text))


@dataclass(slots=True)
class Transport:
    """A client for one run. pause: how to wait (tests do not)."""

    settings: IndexSettings
    pause: Callable[[float], None] = time.sleep
    _session: requests.Session | None = None
    _secrets: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for url in (*self.settings.indexes, *self.settings.find_links):
            self._without_secrets(url)

    @contextmanager
    def open(
        self, url: str, headers: Mapping[str, str] | None = None, *, decode: bool = False
    ) -> Iterator[Answer]:
        """Ask for a URL. decode: undo a Content-Encoding, for pages; a file comes as it is.

        Raises Interrupted for what may be retried, EnvironmentProblem for the rest.
        """
        plain = self._without_secrets(url)
        scheme = urllib.parse.urlsplit(plain).scheme
        if scheme == "file":
            with _open_file(plain) as answer:
                yield answer
            return
        if scheme not in {"http", "https"}:
            msg = f"cannot fetch {redact(url)}: only http, https and file URLs"
            raise EnvironmentProblem(msg, hint="look at pip's index-url and find-links")
        import requests

        sent = {"Accept-Encoding": "gzip" if decode else "identity", **(headers or {})}
        try:
            response = self._ask(plain, sent)
        except requests.RequestException as error:
            raise _translated(error, plain) from error
        with closing(response):
            _judge(response)
            yield Answer(
                response.status_code,
                self._without_secrets(response.url),
                response.headers,
                _chunks(response, decode=decode),
            )

    def length(self, url: str) -> int | None:
        """How many bytes the file at the URL has; None where its server does not say."""

        def ask() -> int | None:
            with self.open(url) as answer:  # only the head: the body is not read
                said = answer.headers.get("Content-Length", "")
                return int(said) if answer.status == 200 and said.isdigit() else None

        return self.patiently(ask, f"cannot ask for the length of {redact(url)}")

    def patiently(self, action: Callable[[], _T], what: str) -> _T:
        """Do it again, up to pip's `retries`, as long as it is Interrupted.

        Raises EnvironmentProblem with the last reason.
        """
        for attempt in range(self.settings.retries + 1):
            try:
                return action()
            except Interrupted as error:
                self.wait(attempt, error, what, last=attempt == self.settings.retries)
        raise AssertionError  # the last wait() raised

    def wait(self, attempt: int, error: Interrupted, what: str, *, last: bool) -> None:
        """Pause before another attempt; longer each time, and never two clients in step.

        Raises EnvironmentProblem where there is no other attempt.
        """
        if error.after is not None and error.after > _LONGEST_PAUSE:
            msg = f"{what}: {error.reason}, and asks us to wait {error.after:.0f} s"
            raise EnvironmentProblem(msg, hint="run again later") from error
        if last:
            msg = f"{what}: {error.reason}"
            raise EnvironmentProblem(msg, hint="look at the network and run again") from error
        backoff = min(0.25 * 2**attempt, 20.0) * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
        self.pause(max(error.after or 0.0, backoff))

    def _ask(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        import requests

        if self._session is None:
            self._session = requests.Session()
            agent = f"stackpatch/{__version__}"
            self._session.headers["User-Agent"] = agent
            if self.settings.proxy:
                self._session.proxies = dict.fromkeys(("http", "https"), self.settings.proxy)
        parts = urllib.parse.urlsplit(url)
        settings = self.settings
        trusted = {parts.hostname, parts.netloc} & set(settings.trusted_hosts)
        with _quiet_about_trusted_hosts():
            return self._session.get(
                url,
                headers=dict(headers),
                auth=self._secrets.get(parts.netloc),
                stream=True,
                timeout=settings.timeout or None,
                # True lets requests look at REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE.
                verify=False if trusted else settings.certificate or True,
                cert=settings.client_certificate,
            )

    def _without_secrets(self, url: str) -> str:
        """The URL without user and password, which are kept for its host."""
        parts = urllib.parse.urlsplit(url)
        userinfo, at, host = parts.netloc.rpartition("@")
        if not at:
            return url
        user, _, password = userinfo.partition(":")
        self._secrets.setdefault(host, (urllib.parse.unquote(user), urllib.parse.unquote(password)))
        return parts._replace(netloc=host).geturl()


@contextmanager
def _quiet_about_trusted_hosts() -> Iterator[None]:
    # The person said `trusted-host`; urllib3 would print a warning for every request.
    import warnings

    import urllib3

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
        yield


def _judge(response: requests.Response) -> None:
    status, url = response.status_code, redact(response.url)
    if status in {200, 206, 404, 410, 416}:
        return
    if status in _AGAIN:
        reason = f"{url} answered {status}"
        raise Interrupted(reason, retry_after(response.headers.get("Retry-After")))
    msg = f"{url} answered {status}"
    hint = None
    if status in {401, 403, 407}:
        hint = "the index wants credentials: in pip's index-url, or in ~/.netrc"
    raise EnvironmentProblem(msg, hint=hint)


def retry_after(value: str | None) -> float | None:
    """Seconds, from a number or an HTTP date; None for nothing or nonsense."""
    if not value:
        return None
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except ValueError:
        return None


def _chunks(response: requests.Response, *, decode: bool) -> Iterator[bytes]:
    import urllib3

    try:
        yield from response.raw.stream(_CHUNK, decode_content=decode)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        url = redact(response.url)
        reason = f"the connection to {url} broke off ({innermost(error)})"
        raise Interrupted(reason) from error


def _translated(error: requests.RequestException, url: str) -> Exception:
    import requests

    host = urllib.parse.urlsplit(url).netloc
    if isinstance(error, requests.exceptions.SSLError):
        msg = f"the certificate of {host} is not accepted: {innermost(error)}"
        hint = "name your CA bundle in pip's `cert` (PIP_CERT) or in REQUESTS_CA_BUNDLE"
        return EnvironmentProblem(msg, hint=hint)
    if isinstance(error, requests.exceptions.ProxyError):
        msg = f"the proxy on the way to {host} does not work: {innermost(error)}"
        return EnvironmentProblem(msg, hint="look at HTTPS_PROXY and pip's `proxy`")
    if isinstance(error, (requests.ConnectionError, requests.Timeout)):
        return Interrupted(f"{host} cannot be reached ({innermost(error)})")
    return EnvironmentProblem(f"cannot fetch {redact(url)}: {innermost(error)}")


def innermost(error: BaseException) -> str:
    """An exception's innermost cause in a few words, without URLs' secrets."""
    inner: object = error
    for _ in range(8):
        nested = getattr(inner, "reason", None) or next(
            (item for item in getattr(inner, "args", ()) if isinstance(item, BaseException)), None
        )
        if nested is None or isinstance(nested, str):
            break
        inner = nested
    if isinstance(inner, OSError) and inner.strerror:
        return redact(inner.strerror)
    words = re.sub(r"<[^>]*>:?\s*", "", str(inner))
    return redact(" ".join(words.split()))[:200] or type(inner).__name__


@contextmanager
def _open_file(url: str) -> Iterator[Answer]:
    path = Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
    if path.is_dir():
        path, url = path / "index.html", f"{url.rstrip('/')}/index.html"
    try:
        file = path.open("rb")
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            msg = f"cannot read {path}: {error.strerror}"
            raise EnvironmentProblem(msg) from error
        yield Answer(404, url, {}, iter(()))
        return
    with file:
        kinds = {".html": "text/html", ".json": "application/json"}
        headers = {
            "Content-Length": str(path.stat().st_size),
            "Content-Type": kinds.get(path.suffix, "application/octet-stream"),
        }
        yield Answer(200, url, headers, iter(lambda: file.read(_CHUNK), b""))
