"""One question to GitHub's API: its answer, or in words why there is none.

Bounded in every direction: a server that sends a byte now and then, sends without end or redirects
without end costs seconds.
"""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    import requests

TIMEOUT = (5.0, 15.0)  # seconds to connect, to read
DEADLINE = 20.0  # seconds for all of an answer: the others run anew with every byte that comes
_MOST = 1 << 20  # bytes of an answer that are read at most
_REDIRECTS = 3  # a renamed repository's answer points to its number


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. headers: by their names in any case. body: decoded, its first MiB."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Why the next question would not be answered either."""

    why: str


class Client:
    """Asks over one connection, one question after the other."""

    def __init__(self) -> None:
        self._session: requests.Session | None = None

    def ask(self, address: str, headers: Mapping[str, str]) -> Answer | Unreachable | str:
        """A string says why this very question has no answer. Never raises for the network."""
        found: queue.SimpleQueue[Answer | Unreachable | str | BaseException] = queue.SimpleQueue()

        def run() -> None:
            try:
                found.put(self._ask(address, headers))
            except BaseException as error:  # noqa: BLE001 - raised again by who waits
                found.put(error)

        # No timeout of a socket ends a head that comes byte by byte; who waits can.
        threading.Thread(target=run, name="github", daemon=True).start()
        try:
            answer = found.get(timeout=DEADLINE)
        except queue.Empty:
            return Unreachable(f"did not finish an answer in {DEADLINE:g} seconds")
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _ask(self, address: str, headers: Mapping[str, str]) -> Answer | Unreachable | str:
        import requests

        session = self._session = self._session or requests.Session()
        try:
            for _ in range(_REDIRECTS):
                with session.get(
                    address,
                    headers=dict(headers),
                    timeout=TIMEOUT,
                    stream=True,
                    allow_redirects=False,
                    auth=_as_it_is,
                ) as response:
                    if not response.is_redirect:
                        return _read(response)
                    there = urljoin(address, response.headers["Location"])
                    if urlsplit(there)[:2] != urlsplit(address)[:2]:
                        return "points to another server"
                    address = there
        except (requests.RequestException, OSError) as error:
            return Unreachable(f"cannot be reached ({type(error).__name__})")
        except ValueError:
            return "redirects to what is no address"
        return "redirects without end"


def _read(response: requests.Response) -> Answer | Unreachable | str:
    from urllib3.exceptions import DecodeError, HTTPError

    try:
        body = response.raw.read(_MOST, decode_content=True)
    except DecodeError:
        return "did not answer with JSON"
    except (HTTPError, OSError) as error:
        return Unreachable(f"broke off its answer ({type(error).__name__})")
    return Answer(response.status_code, response.headers, body)


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Our own header or none: requests would add what a .netrc says, over plain http too."""
    return request
