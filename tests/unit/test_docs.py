"""Documents that can go stale are compared with what they speak of."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from stackpatch.cli import commands, reference

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/*.md")], key=lambda path: path.name
)
HAND_WRITTEN = [path for path in DOCUMENTS if path.name not in {"cli.md", "benchmarks.md"}]


def ids(path: Path) -> str:
    return path.relative_to(CHECKOUT).as_posix()


def test_the_command_line_reference_is_fresh() -> None:
    assert (CHECKOUT / "docs/cli.md").read_text("utf-8") == reference.render(), "run `make docs`"


def test_no_command_is_cut_short_in_the_list_of_its_group() -> None:
    listed = re.findall(
        r"^Commands:\n(.*?)\n(?:\n|```)", reference.render(), re.MULTILINE | re.DOTALL
    )
    assert len(listed) >= 3
    assert not [line for text in listed for line in text.splitlines() if line.endswith("...")]


def test_the_reference_does_not_depend_on_the_terminal() -> None:
    env = {**os.environ, "COLUMNS": "40", "NO_COLOR": "1", "LC_ALL": "C", "PYTHONUTF8": "1"}
    argv = [sys.executable, "-m", "stackpatch.cli.reference"]
    done = subprocess.run(argv, env=env, capture_output=True, check=True, timeout=60)
    assert done.stdout.decode() == reference.render()


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8")):
        if not target.startswith(("http://", "https://", "mailto:", "#")):
            assert (document.parent / target.partition("#")[0]).exists(), target


def headings(document: Path) -> set[str]:
    """The names by which a page's headings can be linked to, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", document.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_every_link_to_a_heading_finds_it(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]*#[^)\s]+)\)", document.read_text("utf-8")):
        page, _, heading = target.partition("#")
        if not page.startswith(("http://", "https://")):
            assert heading in headings(document.parent / page if page else document), target


def test_the_index_names_every_page() -> None:
    index = (CHECKOUT / "docs/index.md").read_text("utf-8")
    pages = {path.name for path in CHECKOUT.glob("docs/*.md")} - {"index.md"}
    assert pages <= set(re.findall(r"\]\(([\w-]+\.md)\)", index))


def test_the_architecture_speaks_of_what_is_there() -> None:
    """The list of rooms is the package's, and every module that it names exists."""
    text = (CHECKOUT / "docs/architecture.md").read_text("utf-8")
    source = CHECKOUT / "src/stackpatch"
    rooms = {path.name for path in source.iterdir() if (path / "__init__.py").exists()}
    listed = re.search(r"```text\nsrc/stackpatch/\n(.*?)```", text, re.DOTALL)
    assert listed is not None
    assert set(re.findall(r"^  (\w+)/ ", listed[1], re.MULTILINE)) == rooms
    for name in re.findall(r"^  (\w+\.py) ", listed[1], re.MULTILINE):
        assert (source / name).is_file(), name
    for name in re.findall(r"`([a-z]+/\w+\.py)`", text):
        assert (source / name).is_file(), name


def command_lines(document: Path) -> Iterator[list[str]]:
    """The words of each `stackpatch …` in a code block or in backticks."""
    text = re.sub(r"\\\n\s*", "", document.read_text("utf-8"))  # a line that goes on in the next
    found = re.findall(r"^\$? ?(?:\.venv/bin/)?(stackpatch .+?)(?: +#.*)?$", text, re.MULTILINE)
    found += re.findall(r"`(stackpatch [^`\n]+)`", text)
    for line in found:
        yield shlex.split(line.replace("…", "").replace("|", " ; "))


@pytest.mark.parametrize("document", HAND_WRITTEN, ids=ids)
def test_every_command_line_in_the_documents_exists(document: Path) -> None:
    root = commands.root_command()
    context = root.make_context("stackpatch", [], resilient_parsing=True)
    for words in command_lines(document):
        command: Any = root
        for word in words[1:]:
            if word in {";", "--", ">"}:
                break
            if word.startswith("-"):
                known = {opt for p in command.params for opt in p.opts} | {"-h", "--help"}
                assert word.partition("=")[0] in known, (document.name, words)
            elif command is root:
                assert word in commands.TABLE or not word.isalpha(), (document.name, words)
                command = root.get_command(context, word) or root
            elif word in getattr(command, "commands", {}):
                command = command.commands[word]


def test_every_dependency_is_pinned_to_a_version_that_it_allows() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    pins = {
        canonicalize_name(name): version
        for name, version in re.findall(
            r"^([\w.-]+)==(\S+)$", (CHECKOUT / "constraints.txt").read_text("utf-8"), re.MULTILINE
        )
    }
    for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        requirement = Requirement(line)
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"constraints.txt does not pin {requirement.name}"
        assert requirement.specifier.contains(pin), line


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert "make test" in (CHECKOUT / "README.md").read_text("utf-8")
    assert re.search(r"\bmake\b.* test\b", (CHECKOUT / ".ci/run").read_text("utf-8"))
    assert os.access(CHECKOUT / ".ci/run", os.X_OK)


def test_the_version_is_said_once_and_has_a_changelog_entry() -> None:
    from stackpatch import __version__

    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == __version__
    changelog = (CHECKOUT / "CHANGELOG.md").read_text("utf-8")
    assert f"## {__version__}" in changelog or "## Unreleased" in changelog
