"""The Dockerfiles as text: what every one of them must keep to."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
from pathlib import Path

import pytest

from stackpatch.artefacts.external import Settings, prepare_external
from stackpatch.errors import InputError
from stackpatch.installed.caches import CACHES
from stackpatch.model.arch import parse_arch

FOLDER = Path(__file__).parents[2] / "dockerfiles"
STACKS = ("flashinfer", "sglang", "trtllm", "vllm")
EACH = pytest.mark.parametrize("stack", STACKS)
# Given by the engine itself, or by every build.
PREDEFINED = {"SOURCE_DATE_EPOCH"}


def instructions(stack: str) -> list[tuple[str, str]]:
    """Instruction and its words; continued lines are joined, comments dropped."""
    text = (FOLDER / f"{stack}.Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    found = []
    for line in joined.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word:
            found.append((word, re.sub(r"\s+", " ", rest)))
    return found


def stages(stack: str) -> list[list[tuple[str, str]]]:
    made: list[list[tuple[str, str]]] = [[]]
    for one in instructions(stack):
        if one[0] == "FROM":
            made.append([])
        made[-1].append(one)
    return made


def test_each_stack_has_its_dockerfile_and_there_is_no_other() -> None:
    assert sorted(path.name for path in FOLDER.glob("*.Dockerfile")) == [
        f"{stack}.Dockerfile" for stack in STACKS
    ]


@EACH
def test_the_base_comes_by_its_argument_and_by_nothing_else(stack: str) -> None:
    froms = [rest.split(" ")[0] for word, rest in instructions(stack) if word == "FROM"]
    assert froms
    assert froms[-1] == "${BASE}"
    assert set(froms) <= {"${BASE}", "${DEVEL}"}
    defaults = dict(
        rest.split("=", 1) for word, rest in stages(stack)[0] if word == "ARG" and "=" in rest
    )
    assert defaults.get("DEVEL", "${BASE}") == "${BASE}"
    assert "BASE" not in defaults  # no image is taken that nobody named


@EACH
def test_no_frontend_comes_from_the_network(stack: str) -> None:
    text = (FOLDER / f"{stack}.Dockerfile").read_text()
    assert not re.search(r"(?im)^\s*#\s*(syntax|escape|check)\s*=", text)


@EACH
def test_every_argument_is_used_and_every_name_is_declared(stack: str) -> None:
    outer = {rest.partition("=")[0] for word, rest in stages(stack)[0] if word == "ARG"}
    text = " ".join(rest for word, rest in instructions(stack) if word == "FROM")
    assert all(f"${{{name}}}" in text for name in outer)
    for stage in stages(stack)[1:]:
        declared = {rest.partition("=")[0] for word, rest in stage if word == "ARG"}
        body = " ".join(rest for word, rest in stage if word != "ARG")
        used = set(re.findall(r"\$\{([A-Z_]+)\}", body))
        used -= {"STACKPATCH_PYTHON"}  # ENV's, for the health check
        assert declared - used == set(), "declared and not used"
        assert used - declared - outer == set(), "used and not declared"


@EACH
def test_nothing_is_installed_from_a_distribution(stack: str) -> None:
    text = (FOLDER / f"{stack}.Dockerfile").read_text()
    assert not re.search(r"\b(apt|apt-get|apk|dnf|yum|conda|curl|wget)\b", text.partition("ARG")[2])


@EACH
def test_a_patched_wheel_is_installed_without_an_index(stack: str) -> None:
    last = stages(stack)[-1]
    runs = [rest for word, rest in last if word == "RUN"]
    assert len(runs) == 1
    assert "/mnt/tools/install.py" in runs[0]
    assert "pip" not in runs[0].replace("tools/install.py", "")
    assert not [rest for word, rest in last if word in {"COPY", "ADD"}]


@EACH
def test_secrets_are_mounted_and_never_copied(stack: str) -> None:
    for word, rest in instructions(stack):
        if word in {"COPY", "ADD", "ENV", "ARG", "LABEL"}:
            assert "secret" not in rest.lower()
    mounted = re.findall(r"type=secret,id=(\w+)(,required=false)?", str(instructions(stack)))
    assert {name for name, _ in mounted} <= {"ca", "git", "pip"}
    assert all(optional for _, optional in mounted)


@EACH
def test_the_image_is_no_root_and_says_what_it_is(stack: str) -> None:
    last = stages(stack)[-1]
    words = [word for word, _ in last]
    assert [rest for word, rest in last if word == "USER"] == ["0", "10001:10001"]
    assert words.index("RUN") < len(words) - 1 - words[::-1].index("USER")
    labels = next(rest for word, rest in last if word == "LABEL")
    assert "org.opencontainers.image.version" in labels
    assert "--user stackpatch:10001" in next(rest for word, rest in last if word == "RUN")


@EACH
def test_the_health_check_is_cheap(stack: str) -> None:
    last = stages(stack)[-1]
    check = next(rest for word, rest in last if word == "HEALTHCHECK")
    interval = int(re.search(r"--interval=(\d+)([sm])", check)[1])  # type: ignore[index]
    assert "--interval=5m" in check or interval >= 30
    assert "--timeout=10s" in check
    program = shlex.split(check.partition("CMD ")[2])
    # The Python that has the package: `python3` may be another one's name.
    assert program[:2] == ["${STACKPATCH_PYTHON}", "-c"]
    assert "STACKPATCH_PYTHON=${PYTHON}" in next(rest for word, rest in last if word == "ENV")
    compile(program[2], "health", "exec")
    assert "generate" not in program[2]
    assert "torch" not in program[2]


@pytest.mark.parametrize(
    ("variable", "value", "removed"),
    [
        ("TRITON_CACHE_DIR", "/opt/warm/triton", "/opt/warm/triton"),
        ("FLASHINFER_WORKSPACE_BASE", "/opt", "/opt/.cache/flashinfer"),
        ("VLLM_CACHE_ROOT", "/data/cache/", "/data/cache"),
        ("VLLM_CACHE_ROOT", "/opt", None),
        ("VLLM_CACHE_ROOT", "/opt/../", None),
        ("SGLANG_CACHE_DIR", "relative/cache", None),
        ("SGLANG_CACHE_DIR", "/", None),
        ("SGLANG_CACHE_DIR", "", None),
        ("HOME", "/root/x", None),
    ],
)
def test_caches_that_a_base_moved_are_found_by_its_variables(
    variable: str, value: str, removed: str | None
) -> None:
    tool = runpy.run_path(str(FOLDER / "tools" / "install.py"))
    assert tool["moved_caches"]({variable: value}) == ([removed] if removed else [])


@EACH
def test_compiled_leftovers_and_caches_are_cleared(stack: str) -> None:
    run = next(rest for word, rest in stages(stack)[-1] if word == "RUN")
    assert "--shadows" in run
    assert "/root/.cache/flashinfer" in run


def test_the_arch_flags_are_those_that_we_have_rules_for() -> None:
    from stackpatch.artefacts.engines.flags import arch_flags

    for stack in STACKS:
        declared = {rest.partition("=")[0] for word, rest in instructions(stack) if word == "ARG"}
        for arch in ("sm120", "sm121"):
            assert set(arch_flags(stack, parse_arch(arch), "13.0").args) <= declared


def test_the_variables_of_moved_caches_are_those_that_we_know() -> None:
    """The tool runs alone in an image; `stackpatch cache` has where each was read."""
    tool = runpy.run_path(str(FOLDER / "tools" / "install.py"))
    known = {variable for cache in CACHES.values() for variable in cache.variables}
    assert {variable for variable, _ in tool["MOVED"]} <= known


def test_programs_for_images_use_the_standard_library_alone() -> None:
    import sys

    for path in (FOLDER / "tools").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


# --- settings against a Dockerfile -----------------------------------------------------------


def settings(stack: str = "flashinfer", **args: str) -> Settings:
    return Settings("buildx", FOLDER / f"{stack}.Dockerfile", args)


def test_settings_pin_the_dockerfile_its_tool_and_the_arguments() -> None:
    one = prepare_external(settings(PYTHON="python3.12"), parse_arch("sm120"), "buildkit 0.13.2")
    pinned = one.pinned()
    assert len(pinned["dockerfile"]) == len(pinned["tool"]) == 64
    assert pinned["args"] == {"PYTHON": "python3.12"}
    assert pinned["network"] == "none"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"BASE": "x"}, "given by the build itself"),
        ({"VERSION": "1"}, "given by the build itself"),
        ({"NO_SUCH": "1"}, "is no ARG of flashinfer.Dockerfile"),
        ({"FLASHINFER_CUDA_ARCH_LIST": "12.0a;12.1a"}, "at one space"),
    ],
)
def test_an_argument_that_changes_nothing_or_too_much_is_refused(
    args: dict[str, str], words: str
) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        prepare_external(settings(**args), parse_arch("sm120"), "buildkit 0.13.2")


@pytest.mark.parametrize("stack", ["vllm", "trtllm"])
def test_a_dockerfile_that_compiles_is_not_driven_yet_and_says_so(stack: str) -> None:
    with pytest.raises(InputError, match="does not drive that") as caught:
        prepare_external(settings(stack), parse_arch("sm120"), "buildkit 0.13.2")
    assert "containers.md" in str(caught.value.hint)


def test_a_dockerfile_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="cannot read"):
        prepare_external(settings("llamacpp"), parse_arch("sm120"), "buildkit 0.13.2")
