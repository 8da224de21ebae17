"""How patient a run is with a registry, and what went over the wire in it.

What may be tried again is decided where it is done; how often, how long and with which pauses is
here.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stackpatch.errors import EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stackpatch.sources.transport import Interrupted

_LONGEST_PAUSE = 60.0
_BLOCK = 1 << 18


@dataclass(frozen=True, slots=True)
class Limits:
    """How patient a run is. Times in seconds, sizes in bytes.

    read: silence on an open connection; settle: that after something was sent, which a
    registry may have to hash and store first. retries: further attempts after the first. document:
    everything about one manifest, config or token, its attempts included. slowest: bytes a second
    that a blob must move at; with `document` on top it gives a blob's total time.
    """

    connect: float = 15.0
    read: float = 60.0
    settle: float = 300.0
    retries: int = 4
    document: float = 180.0
    slowest: float = 20_000.0

    def for_blob(self, size: int) -> float:
        """Seconds for a blob of so many bytes, all attempts together."""
        return self.document + size / self.slowest


@dataclass(slots=True)
class Traffic:
    """What went over the wire, in bytes of bodies; requests as they were sent, retries too."""

    requests: int = 0
    blob_bytes_received: int = 0
    bytes_sent: int = 0


@dataclass(slots=True)
class Patience:
    """What is left of it for one piece of work. seconds: for all attempts together."""

    limits: Limits
    pause: Callable[[float], None]
    what: str
    seconds: float
    attempt: int = 0
    started: float = field(default_factory=time.monotonic)

    def after(self, error: Interrupted, *, progressed: bool = False) -> None:
        """Pause before the next attempt, longer each time, and never two clients in step.

        progressed: something was achieved since, which gives all attempts back but no time.
        Raises EnvironmentProblem where there is no other attempt.
        """
        self.attempt = 0 if progressed else self.attempt + 1
        limits = self.limits
        why = f"{self.what}: {error.reason}"
        if error.after is not None and error.after > _LONGEST_PAUSE:
            msg = f"{why}, and asks us to wait {error.after:.0f} s"
            raise EnvironmentProblem(msg, hint="run again later") from error
        if self.attempt > limits.retries:
            msg = f"{why} (tried {self.attempt} times)"
            raise EnvironmentProblem(msg, hint="look at the network and run again") from error
        backoff = min(0.25 * 2**self.attempt, 20.0) * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
        wait = max(error.after or 0.0, backoff)
        if time.monotonic() - self.started + wait > self.seconds:
            msg = f"{why} (gave up after {self.seconds:.0f} s)"
            raise EnvironmentProblem(msg, hint="look at the network and run again") from error
        self.pause(wait)


def counted(body: Any, traffic: Traffic) -> Any:
    """A request's body whose bytes are counted as they are taken."""
    if isinstance(body, bytes):
        traffic.bytes_sent += len(body)
        return body
    return _Counting(body, traffic)


class _Counting:
    """A file-like body that counts what was taken from it."""

    def __init__(self, body: Any, traffic: Traffic) -> None:
        self._body = body
        self._traffic = traffic

    def __len__(self) -> int:
        return len(self._body)

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        piece: bytes = self._body.read(size)
        self._traffic.bytes_sent += len(piece)
        return piece

    def __iter__(self) -> Iterator[bytes]:  # requests takes only iterables for streams
        return iter(lambda: self.read(_BLOCK), b"")
