"""Images as values: manifest and config bytes, and a new image with one layer more.

The bytes are the truth; what is parsed from them sits beside them. A derived image keeps every
key of its base that we do not know, in its order. Names and shapes: OCI image-spec 1.1, and
Docker's schema 2 media types, which many bases still use.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, Self

from stackpatch.errors import InputError
from stackpatch.model.digest import Digest

if TYPE_CHECKING:
    from stackpatch.artefacts.layer import Layer

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
INDEXES = frozenset({INDEX, DOCKER_INDEX})
MANIFESTS = frozenset({MANIFEST, DOCKER_MANIFEST})

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Platform:
    """An OCI platform. `str()` gives `linux/arm64` or `linux/arm64/v8`."""

    os: str
    architecture: str
    variant: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `os/architecture[/variant]`. Raises ValueError."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(parts):
            msg = f"not a platform: {text!r} (want os/architecture or os/architecture/variant)"
            raise ValueError(msg)
        return cls(*parts)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def serves(self, wanted: Platform) -> bool:
        """Whether an image for this platform is one for `wanted`.

        A variant that is not stated is the architecture's usual one: v8 for arm64, v7 for arm.
        """
        same = (self.os, self.architecture) == (wanted.os, wanted.architecture)
        usual = {"arm64": "v8", "arm": "v7"}.get(self.architecture)
        return same and (self.variant or usual) == (wanted.variant or usual)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference to a blob, with the JSON object that it was read from.

    size: bytes. platform as far as it is stated.
    """

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    raw: Json = field(default_factory=dict, compare=False, repr=False)

    @property
    def annotations(self) -> dict[str, str]:
        """The annotations that are text."""
        stated = self.raw.get("annotations")
        pairs = stated.items() if isinstance(stated, dict) else ()
        return {key: value for key, value in pairs if isinstance(value, str)}

    @classmethod
    def parse(cls, value: object, *, where: str) -> Self:
        """From a manifest's JSON. Raises InputError that names `where` it stood."""
        if not isinstance(value, dict):
            _bad(where, "a descriptor is not a JSON object")
        media, digest, size = (value.get(key) for key in ("mediaType", "digest", "size"))
        if not isinstance(media, str) or not isinstance(digest, str):
            _bad(where, "a descriptor has no mediaType or no digest")
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            _bad(where, f"the descriptor of {digest} has no size")
        if not digest.startswith("sha256:"):
            _bad(where, f"digest {digest!r}: only sha256 is read")
        try:
            return cls(media, Digest.parse(digest), size, _platform(value, where), value)
        except ValueError as error:
            _bad(where, str(error))

    def json(self) -> dict[str, Any]:
        """The JSON object: the one it was read from, or a new one."""
        if self.raw:
            return dict(self.raw)
        made = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.platform:
            shown = {"architecture": self.platform.architecture, "os": self.platform.os}
            if self.platform.variant:
                shown["variant"] = self.platform.variant
            return {**made, "platform": shown}
        return made


@dataclass(frozen=True, slots=True)
class Image:
    """One image for one platform: the bytes of its manifest and of its config.

    Made by `Image.read` or `Image.scratch`; both are checked then, so the views cannot fail.
    """

    manifest: bytes = field(repr=False)
    config: bytes = field(repr=False)
    media_type: str
    layers: tuple[Descriptor, ...]
    platform: Platform

    @property
    def digest(self) -> Digest:
        """The manifest's digest, which names the image."""
        return Digest.of(self.manifest)

    @property
    def descriptor(self) -> Descriptor:
        """What an index says of the image."""
        return Descriptor(self.media_type, self.digest, len(self.manifest), self.platform)

    def manifest_json(self) -> dict[str, Any]:
        """The parsed manifest; a new one each time."""
        return parse_json(self.manifest, where="manifest")

    def config_json(self) -> dict[str, Any]:
        """The parsed config; a new one each time."""
        return parse_json(self.config, where="config")

    @classmethod
    def read(cls, manifest: bytes, config: bytes, *, where: str) -> Self:
        """From the two documents. Raises InputError where they are no image or do not agree."""
        parsed = parse_json(manifest, where=where)
        settings = parse_json(config, where=f"{where}: config")
        media = parsed.get("mediaType", MANIFEST)
        if parsed.get("schemaVersion") != 2 or media not in MANIFESTS:
            _bad(where, f"not an image manifest (mediaType {media!r})")
        described = Descriptor.parse(parsed.get("config"), where=where)
        if (described.digest, described.size) != (Digest.of(config), len(config)):
            _bad(where, "the config is not the one that the manifest names")
        stated = parsed.get("layers")
        if not isinstance(stated, list):
            _bad(where, "the manifest lists no layers")
        layers = tuple(Descriptor.parse(layer, where=where) for layer in stated)
        rootfs = settings.get("rootfs")
        ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        if not isinstance(ids, list) or len(ids) != len(layers):
            _bad(where, f"the config does not describe the manifest's {len(layers)} layers")
        platform = _platform({"platform": settings}, where)
        if platform is None:
            _bad(where, "the config states no platform")
        for key in ("config", "history"):
            kind = dict if key == "config" else list
            if not isinstance(settings.get(key) or kind(), kind):
                _bad(where, f"the config's {key} is not a JSON {kind.__name__}")
        if not isinstance(parsed.get("annotations") or {}, dict):
            _bad(where, "the manifest's annotations are not a JSON object")
        return cls(manifest, config, media, layers, platform)

    @classmethod
    def scratch(cls, platform: Platform) -> Self:
        """The image without layers for this platform."""
        settings: dict[str, Any] = {"architecture": platform.architecture, "os": platform.os}
        if platform.variant:
            settings["variant"] = platform.variant
        settings |= {"config": {}, "rootfs": {"type": "layers", "diff_ids": []}, "history": []}
        config = dump_json(settings)
        manifest = dump_json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": Descriptor(CONFIG, Digest.of(config), len(config)).json(),
                "layers": [],
            }
        )
        return cls(manifest, config, MANIFEST, (), platform)

    def with_layer(
        self,
        layer: Layer,
        *,
        created: str,
        comment: str,
        annotations: Mapping[str, str],
        labels: Mapping[str, str],
        env: Mapping[str, str],
    ) -> Image:
        """A new image: this one, one layer on top, and these settings added or replaced.

        created: RFC 3339 time of the layer and of the image. comment: the history entry's
        `created_by`. The base's own annotations are dropped: they describe the base, and the
        digest of it that `annotations` should carry leads to them.
        """
        config = self.config_json()
        config["created"] = created
        runtime = dict(config.get("config") or {})
        if env:
            runtime["Env"] = _with_env(runtime.get("Env") or [], env)
        if labels:
            runtime["Labels"] = {**(runtime.get("Labels") or {}), **dict(sorted(labels.items()))}
        config["config"] = runtime
        config["rootfs"] = {**config["rootfs"]}
        config["rootfs"]["diff_ids"] = [*config["rootfs"]["diff_ids"], str(layer.diff_id)]
        config["history"] = [
            *(config.get("history") or []),
            {"created": created, "created_by": comment},
        ]
        raw_config = dump_json(config)
        manifest = self.manifest_json()
        described = dict(manifest["config"])
        described["digest"], described["size"] = str(Digest.of(raw_config)), len(raw_config)
        described.pop("data", None)  # an embedded copy of the old config
        media = DOCKER_LAYER if self.media_type == DOCKER_MANIFEST else LAYER
        added = Descriptor(media, layer.digest, len(layer.blob)).json()
        manifest["config"] = described
        manifest["layers"] = [*manifest["layers"], added]
        manifest.pop("annotations", None)
        # Docker's schema 2 has no annotations; readers skip what they do not know.
        if annotations:
            manifest["annotations"] = dict(sorted(annotations.items()))
        return Image.read(dump_json(manifest), raw_config, where="the new image")


def _with_env(base: list[Any], env: Mapping[str, str]) -> list[str]:
    """The base's variables in their order, replaced where named; new ones sorted behind."""
    left = dict(sorted(env.items()))
    out = []
    for item in base:
        name = str(item).partition("=")[0]
        out.append(f"{name}={left.pop(name)}" if name in left else str(item))
    return out + [f"{name}={value}" for name, value in left.items()]


def _platform(value: Json, where: str) -> Platform | None:
    stated = value.get("platform")
    if stated is None:
        return None
    if not isinstance(stated, dict):
        _bad(where, "a platform is not a JSON object")
    parts = [stated.get(key) for key in ("os", "architecture")]
    variant = stated.get("variant") or None
    if not all(isinstance(part, str) and part for part in parts) or not isinstance(
        variant, str | None
    ):
        _bad(where, "a platform states no os or no architecture")
    return Platform(str(parts[0]), str(parts[1]), variant)


def parse_json(content: bytes, *, where: str) -> dict[str, Any]:
    """A JSON object without duplicate keys. Raises InputError."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            _bad(where, "a JSON key stands twice in one object")
        return made

    try:
        value = json.loads(content, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        _bad(where, f"not readable JSON ({error})")
    if not isinstance(value, dict):
        _bad(where, "not a JSON object")
    return value


def dump_json(value: Json) -> bytes:
    """Compact UTF-8 JSON in the order of the keys: the form that goes into an image."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def _bad(where: str, text: str) -> NoReturn:
    msg = f"{where}: {text}"
    raise InputError(msg, where=where)
