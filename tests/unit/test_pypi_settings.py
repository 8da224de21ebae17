"""pip's own settings, as pip reads them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from stackpatch.errors import InputError
from stackpatch.sources.pipconfig import PYPI, IndexSettings, read_settings

if TYPE_CHECKING:
    from pathlib import Path


def conf(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def settings(tmp_path: Path, **environ: str) -> IndexSettings:
    (tmp_path / "home").mkdir(exist_ok=True)
    return read_settings({"HOME": str(tmp_path / "home"), **environ}, system=tmp_path)


def test_without_any_setting_it_is_pypi(tmp_path: Path) -> None:
    assert settings(tmp_path) == IndexSettings()
    assert settings(tmp_path).indexes == (PYPI,)


def test_variables_say_everything(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        PIP_INDEX_URL="https://a.example/simple/",
        PIP_EXTRA_INDEX_URL="https://b.example/simple file:///opt/pypi/simple",
        PIP_FIND_LINKS="/opt/wheels https://c.example/links.html",
        PIP_TRUSTED_HOST="a.example b.example:8443",
        PIP_CERT="/etc/ca.pem",
        PIP_CLIENT_CERT="/etc/me.pem",
        PIP_PROXY="http://proxy:3128",
        PIP_DEFAULT_TIMEOUT="180",
        PIP_RETRIES="2",
    )
    assert found == IndexSettings(
        indexes=("https://a.example/simple", "https://b.example/simple", "file:///opt/pypi/simple"),
        find_links=("/opt/wheels", "https://c.example/links.html"),
        trusted_hosts=("a.example", "b.example:8443"),
        certificate="/etc/ca.pem",
        client_certificate="/etc/me.pem",
        proxy="http://proxy:3128",
        timeout=180.0,
        retries=2,
    )


def test_an_extra_index_comes_behind_pypi(tmp_path: Path) -> None:
    found = settings(tmp_path, PIP_EXTRA_INDEX_URL="https://b.example/simple")
    assert found.indexes == (PYPI, "https://b.example/simple")


def test_the_files_win_in_pips_order(tmp_path: Path) -> None:
    levels = [
        tmp_path / "etc/xdg/pip/pip.conf",
        tmp_path / "etc/pip.conf",
        tmp_path / "home/.pip/pip.conf",
        tmp_path / "home/.config/pip/pip.conf",
    ]
    for number, path in enumerate(levels):
        conf(path, f"[global]\nindex-url = https://{number}.example/simple\n")
        assert settings(tmp_path).indexes == (f"https://{number}.example/simple",)
    found = settings(tmp_path, PIP_INDEX_URL="https://env.example/simple")
    assert found.indexes == ("https://env.example/simple",)
    # Empty means not said.
    assert settings(tmp_path, PIP_INDEX_URL="").indexes == ("https://3.example/simple",)


def test_one_key_of_a_file_does_not_hide_another_files_keys(tmp_path: Path) -> None:
    conf(tmp_path / "etc/pip.conf", "[global]\ncert = /a\n")
    conf(tmp_path / "home/.config/pip/pip.conf", "[global]\nindex_url = https://x.example/simple\n")
    found = settings(tmp_path)
    assert (found.certificate, found.indexes) == ("/a", ("https://x.example/simple",))


def test_sections_for_installing_and_downloading_count(tmp_path: Path) -> None:
    text = "[download]\ncert = /d\n[global]\ncert = /g\ntimeout = 3\n[list]\nindex-url = x\n"
    conf(tmp_path / "etc/pip.conf", text)
    found = settings(tmp_path)
    assert (found.certificate, found.timeout, found.indexes) == ("/d", 3.0, (PYPI,))


def test_several_lines_and_percent_signs(tmp_path: Path) -> None:
    text = (
        "[global]\nextra-index-url =\n    https://u:p%40ss@a.example/s\n    https://b.example/s\n"
    )
    conf(tmp_path / "etc/pip.conf", text)
    assert settings(tmp_path).indexes[1:] == ("https://u:p%40ss@a.example/s", "https://b.example/s")


def test_a_named_file_stands_for_the_users(tmp_path: Path) -> None:
    conf(tmp_path / "home/.config/pip/pip.conf", "[global]\ncert = /user\nproxy = p\n")
    conf(tmp_path / "etc/pip.conf", "[global]\ntimeout = 7\n")
    named = conf(tmp_path / "named.conf", "[global]\ncert = /named\n")
    found = settings(tmp_path, PIP_CONFIG_FILE=str(named))
    assert (found.certificate, found.proxy, found.timeout) == ("/named", None, 7.0)
    absent = settings(tmp_path, PIP_CONFIG_FILE=str(tmp_path / "absent"))
    assert absent.certificate == "/user"
    assert settings(tmp_path, PIP_CONFIG_FILE=os.devnull) == IndexSettings()


def test_xdg_folders_are_used(tmp_path: Path) -> None:
    conf(tmp_path / "xdg/pip/pip.conf", "[global]\ncert = /xdg\n")
    conf(tmp_path / "sys/pip/pip.conf", "[global]\ntimeout = 4\n")
    conf(tmp_path / "etc/xdg/pip/pip.conf", "[global]\nproxy = not-read\n")
    found = settings(
        tmp_path, XDG_CONFIG_HOME=str(tmp_path / "xdg"), XDG_CONFIG_DIRS=str(tmp_path / "sys")
    )
    assert (found.certificate, found.timeout, found.proxy) == ("/xdg", 4.0, None)


def test_no_index_leaves_find_links(tmp_path: Path) -> None:
    found = settings(tmp_path, PIP_NO_INDEX="1", PIP_FIND_LINKS="/w", PIP_INDEX_URL="https://a/s")
    assert (found.indexes, found.find_links) == ((), ("/w",))
    assert settings(tmp_path, PIP_NO_INDEX="0").indexes == (PYPI,)


@pytest.mark.parametrize("text", ["index-url = x\n", "[global\n", "[global]\na = 1\na = 2\n"])
def test_a_file_that_cannot_be_parsed_is_named(tmp_path: Path, text: str) -> None:
    path = conf(tmp_path / "etc/pip.conf", text)
    with pytest.raises(InputError, match="pip's configuration cannot be read") as caught:
        settings(tmp_path)
    assert caught.value.where == str(path)
    assert "\n" not in caught.value.message


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "etc/pip.conf"
    path.parent.mkdir()
    path.write_bytes(b"[global]\ncert = \xff\n")
    with pytest.raises(InputError, match="not UTF-8") as caught:
        settings(tmp_path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "inf"])
def test_a_number_that_is_none_is_said_with_its_place(tmp_path: Path, value: str) -> None:
    with pytest.raises(InputError, match="pip's timeout is") as caught:
        settings(tmp_path, PIP_TIMEOUT=value)
    assert caught.value.where == "$PIP_TIMEOUT"
    path = conf(tmp_path / "etc/pip.conf", f"[global]\nretries = {value}\n")
    with pytest.raises(InputError, match="pip's retries is") as caught:
        settings(tmp_path)
    assert caught.value.where == str(path)


def test_pip_itself_reads_the_same(tmp_path: Path) -> None:
    """The files that real pip would look at are the ones that we look at, in its order."""
    home = tmp_path / "home"
    conf(home / ".pip/pip.conf", "[global]\nindex-url = https://legacy.example/s\ntimeout = 9\n")
    conf(home / ".config/pip/pip.conf", "[global]\nindex-url = https://new.example/s\n")
    environ = {"HOME": str(home), "PATH": os.environ["PATH"], "PIP_CERT": "/env.pem"}
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    said = dict(re.findall(r"^([a-z:]+\.[a-z-]+)='(.*)'$", done.stdout, re.MULTILINE))
    found = read_settings(environ)
    assert found.indexes[0] == said["global.index-url"] == "https://new.example/s"
    assert found.timeout == float(said["global.timeout"]) == 9.0
    assert found.certificate == said[":env:.cert"] == "/env.pem"
