"""The patched wheel, made from the released one.

Everything the series does not touch is carried over byte for byte, compiled code included. What
stands after `repack`: every member that was carried over had the size, the CRC and the RECORD hash
that the released wheel says (they are compared while it is copied); that the released wheel is the
pinned one is the caller's check, by sha256, before it is opened.

Members keep the order of the released wheel; new files stand, sorted, before the first dist-info
member; RECORD is last. Carried-over members keep their compressed bytes and new content is stored
uncompressed, so that no zlib has a say in the digest. Signatures of the old RECORD (`RECORD.jws`,
`RECORD.p7s`) cannot hold for a new one and are left out.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from stackpatch.artefacts.rawzip import Member, RawZip, ZipWriter, unsafe_name
from stackpatch.installed.record import Row, dump_record, parse_record
from stackpatch.storage import disk_errors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_VERSION_LINE = re.compile(
    rb"^Version:[ \t]*([^\r\n]*?)[ \t]*(\r?\n)", re.IGNORECASE | re.MULTILINE
)
_COMPILED_NAME = re.compile(
    r"\.(so(\.\d+)*|pyd|dll|dylib|a|o|lib|cubin|fatbin|pyc)$", re.IGNORECASE
)
_COMPILED_START = (b"\x7fELF", b"!<arch>\n", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"MZ\x90")
_SIGNATURES = ("RECORD.jws", "RECORD.p7s")


@dataclass(frozen=True, slots=True)
class InstalledFile:
    """A file as an installer puts it on disk."""

    content: bytes
    executable: bool = False


@dataclass(frozen=True, slots=True)
class WheelResult:
    """The patched wheel, with what it changes of an installation of the released one.

    sha256: 64 hex digits. files: content by path in site-packages, of each file that is new or
    other than in the released wheel, dist-info included. removed: paths that the released wheel
    installs and this one does not; its dist-info is named by its folder, `old_dist_info`.
    elsewhere: changes in the wheel's `.data` folder, which installs in other places. released:
    RECORD's hashes in the released wheel of what was changed or removed.
    """

    path: Path
    sha256: str
    bytes: int
    name: str
    version: str
    dist_info: str
    old_dist_info: str
    pure: bool
    files: Mapping[str, InstalledFile]
    removed: tuple[str, ...]
    elsewhere: tuple[str, ...]
    released: Mapping[str, str]


def repack(
    source_wheel: Path,
    changes: Mapping[str, bytes | None],
    *,
    local_version: str,
    target: Path,
    epoch: int,
    originals: Mapping[str, str] | None = None,
    executable: Mapping[str, bool] | None = None,
) -> WheelResult:
    """Write the patched wheel into the folder `target` and describe it.

    changes: new content by path in the wheel, None to remove. local_version: the whole version,
    as `stamp.patched_version` gives it. epoch: Unix time of every member. originals: sha256 (hex)
    of the content that each change was made from; a path without one must be new. executable:
    mode by path where a change sets it; else the released wheel's, and not for new files.
    Raises InputError for a wheel that contradicts itself and for changes that cannot be made.
    """
    with RawZip(source_wheel) as source:
        wheel = _Wheel(source, local_version)
        plan = wheel.plan(changes, originals, executable or {})
        path = target / wheel.file_name
        with disk_errors(path):
            target.mkdir(parents=True, exist_ok=True)
            handle, scratch = tempfile.mkstemp(dir=target, prefix=f".{path.name}.", suffix=".tmp")
            try:
                with os.fdopen(handle, "wb", buffering=1 << 18) as file:
                    writer = ZipWriter(file, epoch)
                    files = wheel.write(writer, plan)
                    writer.finish()
                    size = file.tell()
                os.chmod(scratch, 0o644)  # noqa: PTH101 - a mkstemp name; 0600 otherwise
                os.replace(scratch, path)  # noqa: PTH105
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(scratch)  # noqa: PTH108
                raise
    data = f"{wheel.stem}.data/"
    return WheelResult(
        path,
        writer.sha256.hexdigest(),
        size,
        wheel.name,
        local_version,
        wheel.dist_info,
        wheel.old_dist_info,
        wheel.pure,
        files,
        tuple(sorted(name for name, content in plan.items() if content is None)),
        tuple(sorted(name for name in plan if name.startswith(data))),
        {name: wheel.record[name].hash for name in plan if name in wheel.record},
    )


class _Wheel:
    """A released wheel that was read and found sound, with the names of the patched one."""

    def __init__(self, source: RawZip, version: str) -> None:
        self.source = source
        self.version = version
        try:
            name, upstream, _, _ = parse_wheel_filename(source.path.name)
        except (InvalidWheelFilename, InvalidVersion) as error:
            self.fail(f"not a wheel's file name: {error}")
        if not _is_local_of(version, upstream):
            self.fail(f"{version} is not a local version of {upstream}")
        folders = sorted({n.split("/")[0] for n in source.members if ".dist-info/" in n})
        folders = [folder for folder in folders if folder.endswith(".dist-info")]
        if len(folders) != 1:
            found = ", ".join(folders) or "none"
            self.fail(f"want one .dist-info folder at the top, found {found}")
        self.old_dist_info = folders[0]
        self.old_stem = self.old_dist_info.removesuffix(".dist-info")
        self.name, _, stated = self.old_stem.rpartition("-")
        if canonicalize_name(self.name) != name or not _same_version(stated, upstream):
            self.fail(f"the folder {self.old_dist_info} does not belong to this file name")
        self.stem = f"{self.name}-{version}"
        self.dist_info = f"{self.stem}.dist-info"
        parts = source.path.name.split("-")
        self.file_name = "-".join([parts[0], version, *parts[2:]])
        self.record = self._record()
        self.metadata = self._metadata(upstream)
        self.pure = self._pure()

    def fail(self, text: str, *, hint: str | None = None) -> NoReturn:
        self.source.fail(text, hint=hint)

    def renamed(self, name: str) -> str:
        """Where a member of the released wheel lies in the patched one."""
        for kind in (".dist-info/", ".data/"):
            old = self.old_stem + kind
            if name.startswith(old):
                return self.stem + kind + name.removeprefix(old)
        return name

    def _file(self, name: str) -> bytes:
        member = self.source.members.get(f"{self.old_dist_info}/{name}")
        if member is None:
            self.fail(f"has no {self.old_dist_info}/{name}")
        return self.source.read(member)

    def _record(self) -> dict[str, Row]:
        """RECORD by path, of exactly the files that the archive holds. Raises InputError."""
        try:
            rows = parse_record(self._file("RECORD"))
        except ValueError as error:
            self.fail(f"RECORD cannot be read: {error}")
        unhashed = {f"{self.old_dist_info}/{name}" for name in ("RECORD", *_SIGNATURES)}
        for row in rows.values():
            if row.path not in unhashed and not row.hashed:
                self.fail(f"RECORD has no usable hash and size for {row.path}")
        there = {name for name, member in self.source.members.items() if not member.is_folder}
        for name in sorted(there - set(rows) - unhashed)[:1]:
            self.fail(f"holds {name}, which its RECORD does not name")
        for name in sorted(set(rows) - there)[:1]:
            self.fail(f"its RECORD names {name}, which it does not hold")
        return rows

    def _metadata(self, upstream: Version) -> bytes:
        raw = self._file("METADATA")
        ends = [at for at in (raw.find(b"\n\n"), raw.find(b"\r\n\r\n")) if at >= 0]
        end = min(ends) + 2 if ends else len(raw)
        found = list(_VERSION_LINE.finditer(raw, 0, end))
        if len(found) != 1 or not _same_version(found[0][1].decode("utf-8", "replace"), upstream):
            stated = ", ".join(line[1].decode("utf-8", "replace") for line in found) or "none"
            self.fail(f"METADATA should state version {upstream} once, states {stated}")
        at = found[0]
        return raw[: at.start()] + b"Version: " + self.version.encode() + at[2] + raw[at.end() :]

    def _pure(self) -> bool:
        fields = {}
        for line in self._file("WHEEL").decode("utf-8", "replace").splitlines():
            key, _, value = line.partition(":")
            fields[key.strip().lower()] = value.strip()
        if not fields.get("wheel-version", "").startswith("1."):
            self.fail(f"wheel format {fields.get('wheel-version') or 'unknown'}, want 1.x")
        return fields.get("root-is-purelib", "").lower() == "true"

    def plan(
        self,
        changes: Mapping[str, bytes | None],
        originals: Mapping[str, str] | None,
        executable: Mapping[str, bool],
    ) -> dict[str, InstalledFile | None]:
        """The changes that change something, by path in the patched wheel, each one possible."""
        plan: dict[str, InstalledFile | None] = {}
        for name, content in sorted(changes.items()):
            if why := unsafe_name(name):
                self.fail(f"a change of {name!r}: it {why}")
            if name.split("/")[0] == self.old_dist_info or name.endswith("/"):
                self.fail(f"a change of {name}: only files of the package can be changed")
            member = self.source.members.get(name)
            if member is None and content is None:
                self.fail(f"cannot remove {name}: the wheel does not hold it")
            if _COMPILED_NAME.search(name) or (content or b"").startswith(_COMPILED_START):
                self.fail(
                    f"{name} is compiled code, which a wheel cannot be patched in",
                    hint="patch its source and build with an engine that compiles",
                )
            self._same_original(name, member, originals)
            old_mode = member.executable if member else False
            new = (
                None if content is None else InstalledFile(content, executable.get(name, old_mode))
            )
            if member and new and new.executable == old_mode and self._holds(member, new.content):
                continue
            plan[self.renamed(name)] = new
        self._no_file_is_a_folder(plan)
        plan[f"{self.dist_info}/METADATA"] = InstalledFile(self.metadata)
        return plan

    def _same_original(
        self, name: str, member: Member | None, originals: Mapping[str, str] | None
    ) -> None:
        if originals is None:
            return
        expected = originals.get(name)
        if member is None:
            if expected is not None:
                self.fail(f"does not hold {name}, which the series changes")
            return
        if expected is None:
            self.fail(f"holds {name} already, which the series adds")
        row = self.record[name]
        content = bytes.fromhex(expected)
        if row.algorithm != "sha256":
            same = hashlib.sha256(self.source.read(member)).digest() == content
        else:
            same = row.says(content, member.size)
        if not same:
            self.fail(
                f"{name} is not the file that the series was applied to",
                hint="fetch the wheel into the source store and apply the series to that",
            )

    def _holds(self, member: Member, content: bytes) -> bool:
        return member.size == len(content) and self.source.read(member) == content

    def _no_file_is_a_folder(self, plan: Mapping[str, InstalledFile | None]) -> None:
        files = {self.renamed(n) for n, m in self.source.members.items() if not m.is_folder}
        files = {name for name in files if plan.get(name, True)}
        files |= {name for name, content in plan.items() if content}
        for name, content in plan.items():
            parts = name.split("/") if content else []
            above = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
            if clash := next((folder for folder in above if folder in files), None):
                self.fail(f"a change of {name}: {clash} is a file")
            if content and any(other.startswith(f"{name}/") for other in files):
                self.fail(f"a change of {name}: it is a folder")

    def write(
        self, writer: ZipWriter, plan: Mapping[str, InstalledFile | None]
    ) -> dict[str, InstalledFile]:
        """Write all members; return the files that differ from the released wheel's."""
        record = f"{self.dist_info}/RECORD"
        skipped = {record, *(f"{self.dist_info}/{name}" for name in _SIGNATURES)}
        old_names = {self.renamed(name): name for name in self.source.members}
        added = [name for name in plan if name not in old_names]
        order: list[str] = [name for name in old_names if name not in skipped]
        first = next(i for i, n in enumerate(order) if n.startswith(f"{self.dist_info}/"))
        order[first:first] = added
        kept = {name for name in order if not name.endswith("/") and plan.get(name, True)}
        folders = {n[: at + 1] for n in kept for at, char in enumerate(n) if char == "/"}
        changed: dict[str, InstalledFile] = {}
        rows: list[Row] = []
        for name in order:
            member = self.source.members.get(old_names.get(name, ""))
            new = plan.get(name)
            if name.endswith("/"):
                if name in folders and member:
                    writer.copy(self.source, member, name, algorithm="sha256")
            elif new is not None:
                writer.add(name, new.content, executable=new.executable)
                rows.append(Row.of(name, new.content))
                changed[name] = new
            elif name in kept and member:
                rows.append(self._carry(writer, member, name))
                if name.startswith(f"{self.dist_info}/"):
                    changed[name] = InstalledFile(self.source.read(member), member.executable)
        rows.append(Row(record, "", ""))
        content = dump_record(rows)
        writer.add(record, content)
        changed[record] = InstalledFile(content)
        return changed

    def _carry(self, writer: ZipWriter, member: Member, name: str) -> Row:
        """Copy a member as it is, checked against RECORD. Raises InputError."""
        row = self.record[member.name]
        found = writer.copy(self.source, member, name, algorithm=row.algorithm)
        if not row.says(found, member.size):
            self.fail(f"{member.name} is not what its RECORD says", hint="fetch it again")
        return Row(name, row.hash, row.size)


def _is_local_of(text: str, upstream: Version) -> bool:
    try:
        version = Version(text)
    except InvalidVersion:
        return False
    return version.public == upstream.public and str(version) == text and bool(version.local)


def _same_version(text: str, version: Version) -> bool:
    try:
        return Version(text.replace("_", "-")) == version
    except InvalidVersion:
        return False
