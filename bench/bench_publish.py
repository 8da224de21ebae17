"""A FlashInfer patch onto a 1 GB base and into a registry: overlay and publish beside docker's way.

Needs what `scripts/engine` brings (dockerd, buildx, a registry, crane) and root. The docker engine
of each round is one of its own with an empty folder: it knows neither the base nor a cache.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import tarfile
import tempfile
import time
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.registries import running_registry

from bench.measure import Comparison, Contender, Goal, command, program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.registries import RunningRegistry

_ROOT = Path(__file__).parents[1]
_STACK, _ARCH = "flashinfer@0.6.3", "sm120"
_DIST = "usr/local/lib/python3.12/dist-packages"
_MODEL = 950_000_000  # bytes that no compression makes smaller
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG = "application/vnd.oci.image.config.v1+json"


def comparisons(work: Path) -> Iterator[Comparison]:
    """One change, three ways into the registry that has the base."""
    env = _engine()
    os.environ["STACKPATCH_CACHE_DIR"] = str(work / "cache")
    stackpatch = program("stackpatch")
    _quietly([stackpatch, "build", _STACK, "--arch", _ARCH, "--out", work / "scratch"])
    shutil.rmtree(work / "registry", ignore_errors=True)
    with ExitStack() as open_:
        open_.callback(shutil.rmtree, work / "registry", ignore_errors=True)
        registry = open_.enter_context(running_registry(work / "registry"))
        base, size = _base(registry, work)
        root = _root(work, registry.host, base)
        reference = f"{registry.host}/bench/base@{base}"
        serial = iter(range(10**6))
        now: dict[str, str] = {}

        def fresh() -> None:
            shutil.rmtree(work / "dist", ignore_errors=True)
            now["to"] = f"bench/made{next(serial)}"
            (work / "to").write_text(f"{registry.host}/{now['to']}:v1")

        fresh()
        words = f'{_STACK} --arch {_ARCH} --out "{work}/dist" --root "{root}"'
        ours = (
            f'"{stackpatch}" build {words} --base {reference}'
            f' && "{stackpatch}" publish {words} --to "$(cat "{work}/to")"'
        )
        document = _figures(ours)
        layer = _layer(registry, now["to"])
        docker = _Docker(env, work / "docker", open_)
        context = work / "context"
        shutil.rmtree(context, ignore_errors=True)
        context.mkdir(parents=True)
        (context / "layer.tar").write_bytes(gzip.decompress(layer))
        (context / "layer.tar.gz").write_bytes(layer)
        (context / "Dockerfile").write_text(f"FROM {reference}\nADD layer.tar /\n")
        tagged = f'"$(cat "{work}/to")"'
        theirs = (
            f'docker buildx build --quiet --provenance=false --load -t {tagged} "{context}"'
            f" && docker push --quiet {tagged}"
        )
        append = f'crane append -b {reference} -f "{context}/layer.tar.gz" -t {tagged}'

        def cold() -> None:
            fresh()
            docker.restart()

        name = "docker buildx build and docker push, cold engine"
        yield Comparison(
            title=f"a FlashInfer patch onto a base of {size / 1e9:.2f} GB, into its registry",
            note=_note(document, len(layer)),
            contenders=(
                Contender(
                    name="stackpatch build and stackpatch publish",
                    before=fresh,
                    run=command(["sh", "-c", ours]),
                ),
                Contender(
                    name=name, before=cold, run=command(["sh", "-c", theirs], env=docker.env)
                ),
                Contender(
                    name="crane append, of a layer that is there already",
                    before=fresh,
                    run=command(["sh", "-c", append], env=env),
                ),
            ),
            goals=(Goal(against=name, at_most=0.1),),
            rounds=5,
        )


def _note(document: dict[str, Any], layer: int) -> str:
    """What the run before the measured ones sent, from the command's own document."""
    sent = document["layer_bytes_sent"]
    read, mounted = document["base_bytes_read"], document["blobs_mounted"]
    return (
        f"Layer {layer:,} bytes; sent for layers: {sent:,} ({sent / layer:.3f} x; goal: at most"
        f" 1.05 x: {'**met**' if sent <= 1.05 * layer else '**missed**'}), in all, with manifests,"
        f" config, SBOM, provenance and lock: {document['bytes_sent']:,}. Base layers mounted:"
        f" {mounted}, bytes of them read: {read} (goal: none:"
        f" {'**met**' if read == 0 else '**missed**'}). Ours includes making the patched wheel and"
        " the papers; the others get the finished layer."
    )


def _figures(ours: str) -> dict[str, Any]:
    done = subprocess.run(
        ["sh", "-c", f"{ours} --json"], check=True, capture_output=True, text=True
    )
    text = done.stdout
    document: dict[str, Any] = json.loads(text[text.index('{\n  "schema": "stackpatch.publish') :])
    return document


def _engine() -> dict[str, str]:
    """The environment with the engine's programs."""
    words = [str(_ROOT / "scripts" / "engine"), "start", "--plain"]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    said = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    os.environ.setdefault("STACKPATCH_TEST_CACHE", str(Path.home() / ".cache/stackpatch-tests"))
    return {"PATH": f"{said['STACKPATCH_ENGINE_BIN']}:{os.environ['PATH']}", **said}


class _Docker:
    """A dockerd of this benchmark's own, empty after each `restart`."""

    def __init__(self, env: dict[str, str], folder: Path, open_: ExitStack) -> None:
        self.folder = Path(tempfile.gettempdir()) / "stackpatch-bench"  # sockets: short
        self.data = folder
        root = Path(env["STACKPATCH_ENGINE_BIN"]).parent / "root" / "usr"
        self.program = root / "sbin" / "dockerd"
        paths = f"{root}/sbin:{root}/bin:{os.environ['PATH']}"
        self.env = {**env, "DOCKER_HOST": f"unix://{self.folder}/docker.sock"}
        self.own = {**os.environ, "PATH": paths}
        self.process: subprocess.Popen[bytes] | None = None
        open_.callback(self.stop)

    def restart(self) -> None:
        """An engine that knows nothing, ready for work."""
        self.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "daemon.json").write_text(
            '{"features": {"containerd-snapshotter": true}, "log-level": "error"}'
        )
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(self.program, "--config-file", self.folder / "daemon.json"),
                    *("--data-root", self.data, "--exec-root", self.folder / "exec"),
                    *("-H", f"unix://{self.folder}/docker.sock"),
                    *("--pidfile", self.folder / "pid", "--iptables=false", "--bridge=none"),
                ],
                env=self.own,
                stdout=log,
                stderr=log,
            )
        for _ in range(300):
            done = subprocess.run(
                ["docker", "version"], env={**os.environ, **self.env}, capture_output=True
            )
            if done.returncode == 0:
                return
            time.sleep(0.1)
        raise RuntimeError((self.folder / "log").read_text())

    def stop(self) -> None:
        """Stop it and remove all that it had."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def _base(registry: RunningRegistry, work: Path) -> tuple[str, int]:
    """A base in the registry that has FlashInfer as pip installs it; its digest, its bytes."""
    (wheel,) = (work / "cache/downloads").rglob("flashinfer_python-0.6.3-*.whl")
    package = io.BytesIO()
    with tarfile.open(fileobj=package, mode="w") as tar, zipfile.ZipFile(wheel) as released:
        for name in released.namelist():
            content = released.read(name)
            info = tarfile.TarInfo(f"{_DIST}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    model = io.BytesIO()
    with tarfile.open(fileobj=model, mode="w") as tar:
        info = tarfile.TarInfo("opt/model")
        info.size = _MODEL
        tar.addfile(info, _Random(_MODEL))
    layers, ids, size = [], [], 0
    for content in (model.getvalue(), package.getvalue()):
        packed = gzip.compress(content, 1, mtime=0)
        digest = registry.put_blob("bench/base", packed)
        layers.append({"mediaType": _LAYER, "digest": digest, "size": len(packed)})
        ids.append(f"sha256:{hashlib.sha256(content).hexdigest()}")
        size += len(packed)
    settings = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": ids},
        "history": [{"created_by": "bench"} for _ in ids],
    }
    config = json.dumps(settings).encode()
    described = {"mediaType": _CONFIG, "size": len(config)}
    described["digest"] = registry.put_blob("bench/base", config)
    manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": described, "layers": layers}
    listed = json.dumps(manifest).encode()
    return registry.put_manifest("bench/base", "v1", listed, _MANIFEST), size


class _Random(io.RawIOBase):
    """So many random bytes, the same in every run."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._random = random.Random(1)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self._left)
        buffer[:size] = self._random.randbytes(size)
        self._left -= size
        return size


def _root(work: Path, host: str, digest: str) -> Path:
    """Our recipes, with the base recorded as it would be after somebody looked."""
    root = work / "root"
    shutil.rmtree(root, ignore_errors=True)
    for folder in ("recipes", "patches"):
        shutil.copytree(_ROOT / folder, root / folder)
    recipe = root / "recipes" / "flashinfer.yaml"
    lines = recipe.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.strip() == '- version: "0.6.3"')
    lines[at + 1 : at + 1] = [
        "    bases:",
        f"      - image: {host}/bench/base",
        f"        digest: {digest}",
        "        platforms: [linux/amd64]",
        "        kind: site-packages",
        f"        path: /{_DIST}",
        '        python: "3.12"',
        "        evidence: made by the benchmark",
    ]
    recipe.write_text("\n".join(lines) + "\n")
    return root


def _layer(registry: RunningRegistry, repository: str) -> bytes:
    """Our layer, as it was published."""
    index = json.loads(registry.manifest(repository, "v1") or b"")
    manifest = json.loads(registry.manifest(repository, index["manifests"][0]["digest"]) or b"")
    status, _, content = registry.get(f"/v2/{repository}/blobs/{manifest['layers'][-1]['digest']}")
    if status != 200:
        msg = f"the layer is not in {registry.host}/{repository}"
        raise RuntimeError(msg)
    return content


def _quietly(words: list[Any]) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)
