"""Where an interpreter has one distribution installed, and how it came there.

Asked of the interpreter itself, isolated (`-I`) and without importing the package.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from stackpatch.errors import FindingError
from stackpatch.installed.interpreter import question

_QUESTION = """
import importlib.metadata as m, importlib.util as u, json, sys
name, package, mark = sys.argv[1:]
found = list(m.distributions(name=name))
said = None
if found:
    one = found[0]
    record, origin = one.read_text("RECORD"), one.read_text("direct_url.json")
    try:
        spec = u.find_spec(package)
        places = list(spec.submodule_search_locations or []) or [spec.origin] if spec else []
    except Exception:
        places = []
    said = {
        "version": one.version,
        "site": str(one.locate_file("")),
        "metadata": str(getattr(one, "_path", "")),
        "record": record is not None,
        "origin": origin,
        "places": [str(place) for place in places],
        "others": [str(other.locate_file("")) for other in found[1:]],
    }
print()
print(mark + json.dumps(said))
"""


@dataclass(frozen=True, slots=True)
class Distribution:
    """An installed distribution. site: the folder that RECORD's paths start from. dist_info: its
    metadata's folder. editable: where its files really are, for an editable install; else None.
    """

    name: str
    version: str
    site: Path
    dist_info: Path
    editable: str | None

    @property
    def record(self) -> Path:
        """The installer's list of files."""
        return self.dist_info / "RECORD"


def find(python: Path, name: str, package: str) -> Distribution | None:
    """The distribution that the interpreter would import the package from; None for none.

    name: as on the index, `flashinfer-python`; package: `flashinfer`. Raises InputError for what
    is no interpreter, FindingError where several copies are installed, where the package comes
    from elsewhere than the distribution, and where it was not installed from a wheel.
    """
    said = question(python, _QUESTION, name, package)
    if said is None:
        return None
    site, metadata = Path(said["site"]), Path(said["metadata"])
    where = f"{name} {said['version']} in {site}"
    # A folder may be on sys.path twice, by a link.
    others = [place for place in said["others"] if Path(place).resolve() != site.resolve()]
    if others:
        msg = f"{name} is installed more than once: in {site} and in {', '.join(others)}"
        raise FindingError(msg, hint="uninstall it until none is left, then install one")
    editable = _editable(said["origin"])
    if editable is not None:
        return Distribution(name, said["version"], site, metadata, editable)
    if metadata.suffix != ".dist-info" or not said["record"]:
        msg = f"{where} has no RECORD: it was not installed from a wheel"
        raise FindingError(msg, hint=f"`pip install --force-reinstall {name}` brings one")
    expected = (site / package).resolve()
    places = [Path(place).resolve() for place in said["places"]]
    if places[:1] != [expected]:
        msg = f"{where} is not what `import {package}` finds: that is {(*places, 'nothing')[0]}"
        raise FindingError(msg, hint="`stackpatch audit --stack` names what shadows it")
    return Distribution(name, said["version"], site, metadata, None)


def _editable(origin: str | None) -> str | None:
    """Where an editable install has its files, by direct_url.json (PEP 610)."""
    try:
        said = json.loads(origin) if origin else {}
        if said.get("dir_info", {}).get("editable"):
            return str(said["url"])
    except (ValueError, AttributeError, KeyError, TypeError):
        pass
    return None
