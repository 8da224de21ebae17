"""Package indexes: which files a project has, and where the file that a recipe pins can be had.

The simple API in both forms (PEP 503 HTML, PEP 691 JSON, sizes and dates by PEP 700), and pip's
find-links. A pin decides: another sha256 for a pinned file name is refused, with both digests.
"""

from __future__ import annotations

import html.parser
import json
import re
import urllib.parse
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from stackpatch.errors import EnvironmentProblem, FindingError, InputError
from stackpatch.model import nearest
from stackpatch.sources.transport import Transport, redact

if TYPE_CHECKING:
    from stackpatch.sources.transport import Answer

_ACCEPT = (
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, "
    "text/html;q=0.1"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PAGE_LIMIT = 128 << 20  # bytes; the largest page of PyPI has about 30 MB


@dataclass(frozen=True, slots=True)
class IndexFile:
    """One file that an index offers.

    name: the file's. url: where it is, without credentials. sha256: 64 hex digits, None where the
    index does not say. size: bytes, uploaded: when, both None in HTML. yanked: the reason ("" for
    none given), None when it is not. page: the index page that said so.
    """

    name: str
    url: str
    sha256: str | None
    size: int | None
    yanked: str | None
    page: str
    uploaded: datetime | None = None


@dataclass(slots=True)
class PackageIndex:
    """The indexes and find-links of one person's pip; every page is read once in a run."""

    transport: Transport
    _pages: dict[str, tuple[IndexFile, ...] | EnvironmentProblem] = field(default_factory=dict)

    def files(self, project: str) -> list[IndexFile]:
        """Every file of the project, index by index.

        Raises InputError for a project that no index has, EnvironmentProblem when an index cannot
        be read: a list with holes would be a wrong list.
        """
        found, problems = self._ask_all(project)
        if problems:
            raise problems[0]
        if not found:
            raise self._no_project(project)
        return found

    def locate(self, project: str, file: str, sha256: str | None) -> IndexFile:
        """Where the file with this name, and this sha256 if it is pinned, can be had.

        Raises FindingError where the indexes know it with another sha256 only, InputError where
        none has it, EnvironmentProblem where one that might have it cannot be read.
        """
        found, problems = self._ask_all(project)
        named = [candidate for candidate in found if candidate.name == file]
        for candidate in named:
            if candidate.sha256 is not None and candidate.sha256 == (sha256 or candidate.sha256):
                return candidate
        silent = [candidate for candidate in named if candidate.sha256 is None]
        if silent and sha256 is not None:
            return silent[0]  # the download decides
        if problems:
            raise problems[0]
        if silent:
            msg = f"{redact(silent[0].page)} gives no sha256 for {file}, and no recipe pins it"
            raise EnvironmentProblem(msg, hint="pin the file in the recipe")
        if named:
            other = named[0]
            msg = (
                f"{file} on {redact(other.page)} is not the file that the recipe pins: sha256 "
                f"{other.sha256} there, {sha256} in the recipe"
            )
            hint = "a released file never changes: find out who is right before you touch the pin"
            raise FindingError(msg, hint=hint)
        if not found:
            raise self._no_project(project)
        msg = f"no index has the file {file} of {project}"
        raise InputError(msg, hint=nearest.hint(file, [each.name for each in found]))

    # --- inside ---------------------------------------------------------------------------------

    def _ask_all(self, project: str) -> tuple[list[IndexFile], list[EnvironmentProblem]]:
        found: list[IndexFile] = []
        problems = []
        for page in self._places(project):
            if page not in self._pages:
                try:
                    self._pages[page] = tuple(self._read(page))
                except EnvironmentProblem as error:
                    self._pages[page] = error
            answer = self._pages[page]
            if isinstance(answer, EnvironmentProblem):
                problems.append(answer)
            else:
                found += (each for each in answer if _belongs(each.name, project))
        return found, problems

    def _places(self, project: str) -> list[str]:
        settings = self.transport.settings
        pages = [f"{index}/{canonicalize_name(project)}/" for index in settings.indexes]
        for place in settings.find_links:
            is_url = re.match(r"(https?|file):", place)
            pages.append(place if is_url else Path(place).expanduser().absolute().as_uri())
        return pages

    def _read(self, page: str) -> list[IndexFile]:
        folder = _folder_of(page)
        if folder is not None:
            return [
                IndexFile(path.name, path.as_uri(), None, path.stat().st_size, None, page)
                for path in sorted(folder.iterdir())
                if path.is_file()
            ]

        def ask() -> list[IndexFile]:
            with self.transport.open(page, {"Accept": _ACCEPT}, decode=True) as answer:
                if answer.status != 200:
                    return []
                return parse_page(_whole(answer), answer)

        return self.transport.patiently(ask, f"cannot read the index page {redact(page)}")

    def _no_project(self, project: str) -> InputError:
        asked = ", ".join(redact(index) for index in self.transport.settings.indexes)
        msg = f"no index has a project {project!r}"
        hint = f"asked: {asked}" if asked else "pip is told no-index, and find-links has none of it"
        return InputError(msg, hint=hint)


def parse_page(content: bytes, answer: Answer) -> list[IndexFile]:
    """The files of an index page, HTML or JSON by its Content-Type.

    Raises EnvironmentProblem for what is neither, or speaks a later major version.
    """
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    try:
        if kind.endswith("json"):
            return _parse_json(json.loads(content), answer.url)
        if kind in {"text/html", "application/vnd.pypi.simple.v1+html", ""}:
            return _parse_html(content.decode("utf-8", "replace"), answer.url)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        msg = f"the index page {redact(answer.url)} cannot be understood: {error}"
        raise EnvironmentProblem(
            msg, hint="is pip's index-url the base of a simple index?"
        ) from error
    msg = f"{redact(answer.url)} is no index page: its type is {kind}"
    raise EnvironmentProblem(msg, hint="is pip's index-url the base of a simple index?")


def _parse_json(page: Any, base: str) -> list[IndexFile]:
    _refuse_version(page.get("meta", {}).get("api-version", "1.0"), base)
    found = []
    for each in page["files"]:
        url, _ = urllib.parse.urldefrag(urllib.parse.urljoin(base, str(each["url"])))
        size, yanked = each.get("size"), each.get("yanked", False)
        found.append(
            IndexFile(
                name=str(each["filename"]),
                url=url,
                sha256=_sha256(each.get("hashes", {}).get("sha256")),
                size=size if isinstance(size, int) else None,
                yanked=None if yanked is False else yanked if isinstance(yanked, str) else "",
                page=base,
                uploaded=_time(each.get("upload-time")),
            )
        )
    return found


class _Links(html.parser.HTMLParser):
    """Collects the links of a PEP 503 page, its base and its version."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[dict[str, str | None]] = []
        self.base: str | None = None
        self.version = "1.0"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        if tag == "a" and said.get("href"):
            self.links.append(said)
        elif tag == "base" and self.base is None:
            self.base = said.get("href")
        elif tag == "meta" and said.get("name") == "pypi:repository-version":
            self.version = said.get("content") or self.version


def _parse_html(text: str, page: str) -> list[IndexFile]:
    links = _Links()
    links.feed(text)
    links.close()
    _refuse_version(links.version, page)
    base = urllib.parse.urljoin(page, links.base or "")
    found = []
    for link in links.links:
        url, fragment = urllib.parse.urldefrag(urllib.parse.urljoin(base, link["href"] or ""))
        name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
        hashed = urllib.parse.parse_qs(fragment).get("sha256", [None])[0]
        yanked = (link["data-yanked"] or "") if "data-yanked" in link else None
        if name:
            found.append(IndexFile(name, url, _sha256(hashed), None, yanked, page))
    return found


def _refuse_version(version: object, page: str) -> None:
    if str(version).partition(".")[0] != "1":
        msg = f"the index {redact(page)} speaks version {version} of the simple API, we speak 1"
        raise EnvironmentProblem(msg, hint="look for a newer stackpatch")


def _sha256(text: object) -> str | None:
    lower = text.lower() if isinstance(text, str) else ""
    return lower if _SHA256.fullmatch(lower) else None


def _time(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return found.replace(tzinfo=found.tzinfo or UTC) if found else None


def _belongs(file: str, project: str) -> bool:
    """Whether the name is of that project: find-links and sloppy pages hold others too."""
    stem = canonicalize_name(file.partition("-")[0] if file.endswith(".whl") else file)
    name = canonicalize_name(project)
    return stem == name if file.endswith(".whl") else stem.startswith(f"{name}-")


def _folder_of(page: str) -> Path | None:
    """The folder behind a find-links file URL; None for a page (`index.html` makes it one)."""
    parts = urllib.parse.urlsplit(page)
    if parts.scheme != "file":
        return None
    folder = Path(urllib.parse.unquote(parts.path))
    return folder if folder.is_dir() and not (folder / "index.html").exists() else None


def _whole(answer: Answer) -> bytes:
    blocks, size = [], 0
    for block in answer.chunks:
        size += len(block)
        if size > _PAGE_LIMIT:
            msg = f"the index page {redact(answer.url)} is larger than {_PAGE_LIMIT >> 20} MiB"
            raise EnvironmentProblem(msg)
        blocks.append(block)
    return b"".join(blocks)
