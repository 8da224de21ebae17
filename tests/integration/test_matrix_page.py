"""The matrix page in headless Chromium: what a person sees, clicks and types.

Needs Debian's chromium and chromium-driver (`make browser`). The driver is spoken to by the
WebDriver protocol itself, on the loopback.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from stackpatch.cli.matrix import page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORDS = ("needed", "conflict", "upstreamed", "obsolete", "partial", "misplaced", "unsure")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
EVIL = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>"


def document(columns: int = 7, rows: int = 2) -> dict[str, Any]:
    versions = [f"0.6.{number}" for number in range(columns)]

    def cell(version: str, word: str) -> dict[str, Any]:
        piece = {
            "layer": "effect",
            "says": f"{word} at {version}",
            "path": "a/b.py",
            "line": 7,
            "symbol": "build",
            "text": "major == 12",
        }
        states = ("landed", "no-match") if word == "partial" else ("applies",) * 2
        hunks = [
            {"path": "a/b.py", "line": 20 + number, "symbol": "build", "state": state}
            for number, state in enumerate(states)
        ]
        said: dict[str, Any] = {"version": version, "verdict": word, "detail": "why"}
        return said | {"evidence": [piece], "hunks": hunks}

    patches = [
        {
            "name": f"{row}.patch",
            "path": f"patches/{row}.patch",
            "subject": subject,
            "landed": None,
            "cells": [cell(v, WORDS[(column + row) % 7]) for column, v in enumerate(versions)],
        }
        for row, subject in enumerate(("Open the gate", *[EVIL] * (rows - 1)))
    ]
    return {
        "stack": "demo",
        "release": "1.0",
        "versions": versions,
        "newest_clean": None,
        "newest_ready": "0.6.2",
        "patches": patches,
    }


class Browser:
    def __init__(self, port: int, profile: Path) -> None:
        self._base = f"http://127.0.0.1:{port}"
        options = {"args": [*FLAGS, f"--user-data-dir={profile}", "--window-size=1400,900"]}
        if binary := shutil.which("chromium"):
            options["binary"] = binary  # type: ignore[assignment]
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        self._base += f"/session/{self._call('POST', '/session', wanted)['sessionId']}"

    def _call(self, method: str, path: str, body: object = None) -> Any:
        data = json.dumps(body or {}).encode() if method == "POST" else None
        asked = urllib.request.Request(self._base + path, data, method=method)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, path: Path) -> None:
        self._call("POST", "/url", {"url": path.as_uri()})

    def run(self, script: str, *arguments: object) -> Any:
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def click(self, selector: str) -> None:
        found = self._call("POST", "/element", {"using": "css selector", "value": selector})
        self._call("POST", f"/element/{found[ELEMENT]}/click")

    def keys(self, text: str) -> None:
        active = self._call("GET", "/element/active")[ELEMENT]
        self._call("POST", f"/element/{active}/value", {"text": text})

    def scheme(self, name: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": name}]
        named = {"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}}
        self._call("POST", "/goog/cdp/execute", named)

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        named = {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics}
        self._call("POST", "/goog/cdp/execute", named)

    def quit(self) -> None:
        self._call("DELETE", "")


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[Browser]:
    if shutil.which("chromedriver") is None or shutil.which("chromium") is None:
        pytest.fail("the page is checked in Chromium: `make tools` installs it (Debian, root)")
    # Chromium leaves a folder there; its socket's path must be short, so not below tmp_path.
    with tempfile.TemporaryDirectory(prefix="sp-", ignore_cleanup_errors=True) as short:
        driver = subprocess.Popen(
            ("chromedriver", "--port=0"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "TMPDIR": short},
        )
        try:
            assert driver.stdout is not None
            port = 0
            for line in driver.stdout:
                if found := re.search(r"started successfully on port (\d+)", line):
                    port = int(found[1])
                    break
            assert port
            browser = Browser(port, tmp_path / "profile")
            target = tmp_path / "matrix.html"
            target.write_text(page(document()))
            browser.open(target)
            try:
                yield browser
            finally:
                browser.quit()
        finally:
            driver.terminate()
            driver.communicate(timeout=30)


EVIDENCE = "return document.getElementById('evidence').innerText"
COLOURS = """const found = {};
for (const b of document.querySelectorAll('button.cell'))
  found[b.classList[1]] = getComputedStyle(b).backgroundColor;
return found"""
FOCUSED = "return document.activeElement.getAttribute('aria-label')"


def test_the_grid_shows_every_cell_in_its_colour(shown: Browser) -> None:
    assert shown.run("return document.querySelectorAll('button.cell').length") == 14
    assert shown.run("return document.querySelectorAll('thead th').length") == 8
    assert shown.run("return document.querySelectorAll('tbody tr').length") == 2
    colours = shown.run(COLOURS)
    assert sorted(colours) == sorted(WORDS)
    assert len(set(colours.values())) == 7, "no two verdicts look the same"
    sizes = shown.run(
        "return [...document.querySelectorAll('button.cell')].every(b => b.offsetWidth >= 20)"
    )
    assert sizes
    assert "0.6.2" in shown.run("return document.getElementById('facts').innerText")


def test_a_click_shows_the_evidence(shown: Browser) -> None:
    shown.click("tbody tr:first-child td:nth-of-type(3) button")
    text = shown.run(EVIDENCE)
    for piece in ("Open the gate at 0.6.2", "upstreamed", "effect", "a/b.py:7", "major == 12"):
        assert piece in text
    assert "Hunk by hunk" not in text, "they are all the same"
    assert shown.run("return document.querySelectorAll('[aria-pressed=true]').length") == 1


def test_where_hunks_differ_each_is_shown(shown: Browser) -> None:
    shown.click(f"tbody tr:first-child td:nth-of-type({WORDS.index('partial') + 1}) button")
    text = shown.run(EVIDENCE)
    assert "landed line 20 of the patch a/b.py in build" in text
    assert "no-match line 21 of the patch a/b.py in build" in text


def test_the_keyboard_reaches_every_cell(shown: Browser) -> None:
    shown.run("document.querySelector('button.cell[tabindex=\"0\"]').focus()")
    shown.keys("\ue014\ue014")  # right, right
    assert "0.6.2" in shown.run(FOCUSED)
    shown.keys("\ue015")  # down
    assert shown.run(FOCUSED).startswith(EVIL)
    shown.keys("\ue010")  # End
    assert "0.6.6" in shown.run(FOCUSED)
    shown.keys("\ue014\ue015")  # no further
    assert "0.6.6" in shown.run(FOCUSED)
    shown.keys("\ue007")  # Enter
    assert "0.6.6" in shown.run(EVIDENCE)


def test_the_dark_is_dark(shown: Browser) -> None:
    back = "return getComputedStyle(document.body).backgroundColor"
    shown.scheme("light")
    light, bright = shown.run(COLOURS), shown.run(back)
    shown.scheme("dark")
    dark, black = shown.run(COLOURS), shown.run(back)
    assert all(light[word] != dark[word] for word in WORDS)
    assert (
        sum(map(int, re.findall(r"\d+", black))) < 150 < sum(map(int, re.findall(r"\d+", bright)))
    )


def test_nothing_leaves_the_page_and_text_is_only_text(shown: Browser) -> None:
    assert shown.run("return performance.getEntriesByType('resource').length") == 0
    assert shown.run("return document.title").startswith("demo 1.0")
    assert shown.run("return document.images.length") == 0
    heads = "return [...document.querySelectorAll('tbody th')].map(t => t.innerText)"
    assert shown.run(heads)[1] == EVIL


# --- large grids, in a window of 1280 by 800 -----------------------------------------------------

SCROLLER = "const box = document.querySelector('.scroll');"
RECT = """const r = document.querySelector(arguments[0]).getBoundingClientRect();
return {left: r.left, right: r.right, top: r.top, bottom: r.bottom}"""
FOCUS_RECT = """const r = document.activeElement.getBoundingClientRect();
return {left: r.left, right: r.right, top: r.top, bottom: r.bottom}"""


def grid(shown: Browser, tmp_path: Path, columns: int, rows: int, **more: object) -> None:
    target = tmp_path / f"{columns}x{rows}.html"
    target.write_text(page({**document(columns, rows), **more}))
    shown.size(1280, 800)
    shown.open(target)


def test_every_release_of_flashinfer_fits_beside_the_subjects(
    shown: Browser, tmp_path: Path
) -> None:
    grid(shown, tmp_path, 42, 6)
    assert shown.run(f"{SCROLLER} return box.scrollWidth <= box.clientWidth")
    assert shown.run("return document.documentElement.scrollWidth <= innerWidth")


def test_a_wider_grid_shows_the_newest_and_keeps_the_subjects(
    shown: Browser, tmp_path: Path
) -> None:
    grid(shown, tmp_path, 90, 6)
    assert shown.run(f"{SCROLLER} return box.scrollWidth > box.clientWidth"), "it must scroll"
    box = shown.run(RECT, ".scroll")
    newest = shown.run(RECT, "thead th:last-child")
    subject = shown.run(RECT, "tbody th")
    assert newest["right"] <= box["right"] + 1
    assert abs(subject["left"] - box["left"]) <= 2
    shown.run("document.querySelector('tbody tr:nth-child(2) td:nth-child(40) button').focus()")
    shown.keys("\ue011")  # Home
    assert "0.6.0" in shown.run(FOCUSED)
    focused = shown.run(FOCUS_RECT)
    assert focused["left"] >= shown.run(RECT, "tbody th")["right"], "not behind the subjects"


def test_a_longer_grid_keeps_its_versions(shown: Browser, tmp_path: Path) -> None:
    grid(shown, tmp_path, 20, 60)
    shown.run(f"{SCROLLER} box.scrollTop = 1000")
    assert shown.run(f"{SCROLLER} return box.scrollTop") > 500
    box, head = shown.run(RECT, ".scroll"), shown.run(RECT, "thead th:last-child")
    assert abs(head["top"] - box["top"]) <= 2
    assert box["bottom"] - box["top"] <= 800
    shown.run("document.querySelector('tbody tr:nth-child(40) td:nth-child(9) button').focus()")
    for _ in range(25):
        shown.keys("\ue013")  # up
    assert shown.run(FOCUS_RECT)["top"] >= head["bottom"] - 1, "not behind the versions"


def test_the_series_own_version_is_marked(shown: Browser, tmp_path: Path) -> None:
    grid(shown, tmp_path, 9, 2, release="0.6.4")
    marked = "return [...document.querySelectorAll('th.home')].map(cell => cell.innerText.trim())"
    assert shown.run(marked) == ["0.6.4"]


# --- the evidence in the window ------------------------------------------------------------------

CHOSEN = "[aria-pressed=true]"


def seen_together(shown: Browser, height: int) -> None:
    """The chosen cell and its evidence are in the window, and neither hides the other."""
    cell, evidence = shown.run(RECT, CHOSEN), shown.run(RECT, "#evidence h2")
    assert 0 <= cell["top"] < cell["bottom"] <= shown.run(RECT, "#evidence")["top"]
    assert evidence["bottom"] <= height


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (420, 740)])
def test_evidence_of_a_long_grid_shows_where_one_clicks(
    shown: Browser, tmp_path: Path, width: int, height: int
) -> None:
    grid(shown, tmp_path, 80, 30)
    shown.size(width, height)
    shown.run("scrollTo(0, 0)")
    shown.click("tbody tr:nth-child(2) td:nth-of-type(79) button")
    assert "at 0.6.78" in shown.run(EVIDENCE)
    seen_together(shown, height)
    for _ in range(20):
        shown.keys("\ue015")  # down
    shown.keys("\ue007")  # Enter
    seen_together(shown, height)
    assert shown.run("return document.documentElement.scrollWidth <= innerWidth")


def test_escape_closes_the_evidence_and_stays_at_the_cell(shown: Browser) -> None:
    shown.click("tbody tr:first-child td:nth-of-type(3) button")
    where = shown.run(FOCUSED)
    for leave in ("", "document.getElementById('evidence').focus()"):
        shown.run(leave)
        shown.keys("\ue00c")  # Escape
        assert shown.run(FOCUSED) == where
        assert shown.run("return document.querySelectorAll(arguments[0]).length", CHOSEN) == 0
        assert "a/b.py" not in shown.run(EVIDENCE)
        shown.keys("\ue007")
        assert "a/b.py" in shown.run(EVIDENCE)
    shown.click("#close")
    assert shown.run(FOCUSED) == where
    assert shown.run("return document.querySelector('#grid').getAttribute('role')") == "grid"


def test_long_words_stay_in_the_window(shown: Browser, tmp_path: Path) -> None:
    patches = document(7, 2)["patches"]
    word = "y" * 400
    for patch in patches:
        patch["subject"] = f"{word} {patch['subject'] * 20}"
        for cell in patch["cells"]:
            cell["detail"] = cell["evidence"][0]["says"] = cell["evidence"][0]["text"] = word
    grid(shown, tmp_path, 7, 2, patches=patches)
    shown.click("tbody tr:first-child td:nth-of-type(3) button")
    assert shown.run("return document.documentElement.scrollWidth <= innerWidth")
    row = shown.run(RECT, "tbody tr")
    assert row["bottom"] - row["top"] < 120, "cut; the whole is in its title"
    assert shown.run("return document.querySelector('tbody th').title").startswith(word)


def test_words_that_run_backwards_turn_nothing_else(shown: Browser, tmp_path: Path) -> None:
    patches = document(7, 1)["patches"]
    patches[0]["subject"] = "\u202eevil"
    grid(shown, tmp_path, 7, 1, patches=patches)
    shown.click("tbody tr:first-child td:nth-of-type(3) button")
    ends = shown.run("""const h = document.querySelector('#evidence h2');
const [name, rest] = [h.firstChild, h.lastChild].map(node => {
  const range = document.createRange(); range.selectNodeContents(node);
  return range.getBoundingClientRect(); });
return [name.right, rest.left]""")
    assert ends[0] <= ends[1] + 1, "the version stands behind the subject"


def test_where_a_patch_landed_stands_beside_it(shown: Browser, tmp_path: Path) -> None:
    patches = document(7, 2)["patches"]
    patches[0]["landed"] = "0.6.2"
    grid(shown, tmp_path, 7, 2, patches=patches)
    heads = shown.run("return [...document.querySelectorAll('tbody th')].map(t => t.innerText)")
    assert ["upstream from 0.6.2" in head for head in heads] == [True, False]


@pytest.mark.parametrize(
    ("versions", "rising"),
    [
        (["0.6.9", "0.6.10", "0.6.10.post1", "v1"], True),
        (["1.10", "1.0"], False),
        (["1.0", "1.0rc1"], False),
        (["1.0", "main"], False),
        (["1.0", "1.0"], False),
        (["1.0"], False),
    ],
)
def test_the_newest_is_on_the_right_only_where_it_is(
    shown: Browser, tmp_path: Path, versions: list[str], rising: bool
) -> None:
    patches = document(len(versions), 1)["patches"]
    grid(shown, tmp_path, len(versions), 1, versions=versions, patches=patches)
    lead = shown.run("return document.getElementById('lead').innerText")
    assert ("newest on the right" in lead) is rising
    assert lead.startswith("1 patch of demo 1.0 at ")


def test_nothing_judged_is_said(shown: Browser, tmp_path: Path) -> None:
    grid(shown, tmp_path, 5, 1, patches=[])
    assert "Nothing was judged" in shown.run(EVIDENCE)


def test_a_cell_that_the_patch_is_not_meant_for_is_striped_and_says_so(
    shown: Browser, tmp_path: Path
) -> None:
    patches = document(7, 2)["patches"]
    patches[0]["applies_to"] = "<0.6.3"
    for number, cell in enumerate(patches[0]["cells"]):
        cell["meant"] = number < 2
    grid(shown, tmp_path, 7, 2, patches=patches)
    striped = shown.run(
        "return [...document.querySelectorAll('button.cell')].map(b => "
        "getComputedStyle(b).backgroundImage !== 'none')"
    )
    words = [cell["verdict"] for cell in patches[0]["cells"]]
    assert words[2:4] == ["upstreamed", "obsolete"]
    assert striped == [False] * 4 + [True] * 3 + [False] * 7, "what has landed is as it should be"
    assert "striped" in shown.run("return document.getElementById('legend').innerText")
    shown.run("document.querySelectorAll('button.cell')[4].click()")
    assert "Not meant for this version: Applies-To: <0.6.3" in shown.run(
        "return document.getElementById('evidence').innerText"
    )
    label = shown.run("return document.querySelectorAll('button.cell')[4].ariaLabel")
    assert label.endswith("; not meant for it: Applies-To: <0.6.3")
    grid(shown, tmp_path, 7, 2)
    assert "striped" not in shown.run("return document.getElementById('legend').innerText")
