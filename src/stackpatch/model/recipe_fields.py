"""The kinds of text in a recipe, each with what is wrong with a text that is none.

Every one is a `str` in Python; the pattern goes into the JSON Schema as well, so that an editor
complains before we do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, Field

from stackpatch.model.arch import CodeArch

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler


def _checked(fault: Callable[[str], str | None]) -> AfterValidator:
    """A validator from a function that says what is wrong, or None."""

    def validate(value: str) -> str:
        wrong = fault(value)
        if wrong is not None:
            raise ValueError(wrong)
        return value

    return AfterValidator(validate)


def _shown(pattern: str) -> dict[str, Any]:
    """The pattern as the JSON Schema has it."""
    return {"pattern": f"^({pattern})$"}


@dataclass(frozen=True, slots=True)
class Like:
    """Text of a pattern, in the JSON Schema too. want: what it is, in words."""

    pattern: str
    want: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return AfterValidator(self._matched).__get_pydantic_core_schema__(source, handler)

    def __get_pydantic_json_schema__(
        self, schema: Any, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), **_shown(self.pattern)}

    def _matched(self, value: str) -> str:
        if re.fullmatch(self.pattern, value) is None:
            msg = f"{value[:80]!r} is not {self.want}"
            raise ValueError(msg)
        return value


def _version_fault(value: str) -> str | None:
    try:
        parsed = Version(value)
    except InvalidVersion:
        return f"{value!r} is not a PEP 440 version such as 0.6.3 or 0.7.2.post1"
    if parsed.local:
        return f"{value!r} has a local part; upstream releases have none"
    return None if str(parsed) == value else f"{value!r} is written {str(parsed)!r} in PEP 440"


def _range_fault(value: str) -> str | None:
    try:
        parsed = SpecifierSet(value)
    except InvalidSpecifier:
        return f"{value!r} is not a PEP 440 range such as >=12.9"
    return None if len(parsed) else "an empty range admits every version"


def _date_fault(value: str) -> str | None:
    if not re.fullmatch(_DATE, value):
        return f"{value!r} is not a UTC time such as 2026-02-06T00:28:23Z"
    try:
        year = datetime.fromisoformat(value).year
    except ValueError:
        return f"{value!r} is not a date that exists"
    return None if 1980 <= year < 2108 else f"{value!r} cannot be recorded in a wheel (a zip file)"


def _path_fault(value: str) -> str | None:
    parts = value.removesuffix("/").split("/")
    if value and (
        any(part in ("", ".", "..") or part.lower() == ".git" for part in parts)
        or any(ord(character) < 32 or character in "\\:" for character in value)
    ):
        return f"{value!r} is not a plain path inside the tree"
    return None


def _folder_fault(value: str) -> str | None:
    if not value.startswith("/") or value == "/" or value.endswith("/"):
        return f"{value!r} is not a folder from / on, without a slash at its end"
    wrong = _path_fault(value.removeprefix("/"))
    return None if wrong is None else f"{value!r} is not a plain path inside the image"


def _distribution_fault(value: str) -> str | None:
    if not re.fullmatch(_NAME, value):
        return f"{value!r} is not the name of a distribution"
    normal = canonicalize_name(value)
    return None if value == normal else f"{value!r} is {normal!r} on the index (PEP 503)"


def _day_fault(value: str) -> str | None:
    try:
        known = re.fullmatch(_DAY, value) and datetime.fromisoformat(value)
    except ValueError:
        known = None
    return None if known else f"{value!r} is not a day such as 2026-11-21"


def _pattern_fault(value: str) -> str | None:
    from stackpatch.model.trailers import compile_pattern

    try:
        compile_pattern(value)
    except ValueError as error:
        return f"not a regular expression: {error}"
    return None


def _code_fault(value: str) -> str | None:
    for one in value.split("|"):
        try:
            CodeArch.parse(one)
        except ValueError:
            return f"{value!r} is no target such as sm_100f"
    return None


_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"
_COMMIT = r"[0-9a-f]{40}"
_SHA256 = r"[0-9a-f]{64}"
_NAME = r"[A-Za-z0-9]+([-_.]+[A-Za-z0-9]+)*"
_LOWER = r"[a-z0-9]+([-_.][a-z0-9]+)*"
_PACKAGE = r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
# Any transport of git but `ext::` and options in disguise; a local repository by absolute path.
_GIT_URL = r"(https?|ssh|git|file)://[^\s]+|[A-Za-z0-9_.]+@[A-Za-z0-9_.-]+:[^\s]+|/[^\s]*"
_URL = r"https?://[^\s]+"
_FOLDER = r"[A-Za-z0-9][A-Za-z0-9._+-]*"
# A tag as git takes it (git check-ref-format), without what a shell or a refspec would read.
_TAG = r"[A-Za-z0-9][A-Za-z0-9._+/-]*"
_PYTHON = r"3\.[0-9]+"
_DIGEST = r"sha256:[0-9a-f]{64}"
# Names of the OCI distribution protocol, behind a registry's host that is always written.
_IMAGE = (
    r"([a-z0-9-]+(\.[a-z0-9-]+)+(:[0-9]+)?|localhost(:[0-9]+)?)"
    r"(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)+"
)
_IMAGE_TAG = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_PLATFORM = r"linux/(amd64|arm64)"

Sentence = Annotated[
    str,
    Field(json_schema_extra={"minLength": 1}),
    _checked(lambda value: None if value.strip() else "empty"),
]
VersionText = Annotated[str, _checked(_version_fault)]
RangeText = Annotated[str, _checked(_range_fault)]
PathText = Annotated[str, _checked(_path_fault)]
DayText = Annotated[str, Field(json_schema_extra=_shown(_DAY)), _checked(_day_fault)]
PatternText = Annotated[str, _checked(_pattern_fault)]
CodeText = Annotated[str, _checked(_code_fault)]
GlobText = Annotated[
    str, _checked(lambda value: None if value.strip("/ ") == value and value else "not a pattern")
]
DateText = Annotated[str, Field(json_schema_extra=_shown(_DATE)), _checked(_date_fault)]
CommitText = Annotated[str, Like(_COMMIT, "a full commit id (40 lower-case hex digits)")]
Sha256Text = Annotated[str, Like(_SHA256, "a sha256 (64 lower-case hex digits)")]
StackName = Annotated[str, Like(_LOWER, "a lower-case name")]
DistributionName = Annotated[
    str, Field(json_schema_extra=_shown("[a-z0-9]+(-[a-z0-9]+)*")), _checked(_distribution_fault)
]
PackageName = Annotated[str, Like(_PACKAGE, "an import name")]
VariableName = Annotated[str, Like(_VARIABLE, "a variable's name")]
VariableValue = Annotated[
    str,
    _checked(lambda value: "holds a line break or NUL" if re.search(r"[\n\r\0]", value) else None),
]
GitUrl = Annotated[str, Like(_GIT_URL, "a git URL (https, ssh, git, file) or an absolute path")]
Url = Annotated[str, Like(_URL, "an http(s) URL")]
FolderName = Annotated[str, Like(_FOLDER, "a plain folder name")]
TagName = Annotated[str, Like(_TAG, "a tag's name")]
PythonVersion = Annotated[str, Like(_PYTHON, "a Python version like 3.12")]
DigestText = Annotated[str, Like(_DIGEST, "a digest (sha256: and 64 lower-case hex digits)")]
ImageName = Annotated[
    str, Like(_IMAGE, "a registry and a repository such as docker.io/lmsysorg/sglang, no tag")
]
ImageTag = Annotated[str, Like(_IMAGE_TAG, "an image's tag")]
PlatformText = Annotated[str, Like(_PLATFORM, "linux/amd64 or linux/arm64")]
FolderInImage = Annotated[str, _checked(_folder_fault)]
