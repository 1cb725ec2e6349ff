"""Who may import whom: read from the source text, and tried in a process of its own."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import bison_sandbox
import kpi_pipeline

PACKAGE = Path(kpi_pipeline.__file__).parent
SANDBOX = Path(bison_sandbox.__file__).parent
OURS = kpi_pipeline.__name__

# A room is a folder or a file directly under the package. What each may import, from the ground up.
_GROUND = {"errors", "instances", "settings", "retry", "parts", "probe"}
_DATA = {*_GROUND, "domain", "db"}
_WORK = {*_DATA, "bison", "app"}
_RULES = {*_WORK, "inbox", "sync", "checks", "alerts"}
MAY_IMPORT: dict[str, set[str]] = {
    "domain": set(),
    "errors": set(),
    "retry": set(),
    "parts": set(),
    "probe": set(),
    "instances": set(),
    "settings": {"errors", "instances"},
    "bison": {"retry"},
    "db": {*_GROUND, "domain"},
    "frames": _DATA,
    "app": {*_DATA, "bison"},
    "inbox": _WORK,
    "sync": {*_WORK, "inbox"},
    "checks": _DATA,
    "alerts": {*_WORK, "checks"},
    "web": _DATA,
    "gateway": {*_DATA, "inbox", "checks", "web"},
    "dashboard": {*_DATA, "checks", "web", "frames"},
    "orchestration": {*_RULES, "gateway", "web"},
    "definitions": {*_DATA, "orchestration"},
    "services": {*_RULES, "gateway", "web", "orchestration", "definitions"},
    "cli": {
        *_RULES,
        "gateway",
        "web",
        "dashboard",
        "orchestration",
        "definitions",
        "services",
        "frames",
    },
}
DAGSTER_ROOMS = {"orchestration", "definitions", "services", "cli"}
PRIVATE_NAMES = PACKAGE / "orchestration" / "dagster_private.py"


def imported_modules(source: str, package: str) -> Iterator[str]:
    """Each module that a source text in `package` may name in an import, wherever it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            # `from package import name` may name a module as well as something inside one.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def files_of(room: str) -> list[Path]:
    single = PACKAGE / f"{room}.py"
    return [single] if single.exists() else sorted((PACKAGE / room).rglob("*.py"))


def imports_of(room: str) -> set[str]:
    files = files_of(room)
    assert files, f"there is no room {room}"
    return modules_in(files, PACKAGE)


def modules_in(files: Sequence[Path], package: Path) -> set[str]:
    """Every module that these files of a package name in an import."""
    return {
        module
        for file in files
        for module in imported_modules(
            file.read_text("utf-8"), ".".join(file.relative_to(package.parent).parts[:-1])
        )
    }


def rooms_of(modules: set[str]) -> set[str]:
    """The rooms of ours among some modules."""
    parts = [module.split(".") for module in modules]
    return {names[1] for names in parts if names[0] == OURS and len(names) > 1}


def dagster_among(modules: set[str]) -> set[str]:
    tops = {module.split(".")[0] for module in modules}
    return {top for top in tops if top == "dagster" or top.startswith("dagster_")}


def all_rooms() -> list[str]:
    found = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    found |= {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    return sorted(found)


@pytest.mark.parametrize("room", all_rooms())
def test_a_room_imports_only_the_rooms_below_it(room: str) -> None:
    assert room in MAY_IMPORT, f"the table of rooms lacks {room}"
    assert rooms_of(imports_of(room)) - {room} <= MAY_IMPORT[room]


def test_the_table_of_rooms_has_no_circle() -> None:
    order = list(MAY_IMPORT)
    for place, room in enumerate(order):
        assert MAY_IMPORT[room] <= set(order[:place]), f"{room} imports a room above it"
    assert set(order) == set(all_rooms()), "the table names each room, and no other"


@pytest.mark.parametrize("room", [room for room in all_rooms() if room not in DAGSTER_ROOMS])
def test_dagster_stays_in_its_own_rooms(room: str) -> None:
    modules = imports_of(room)
    assert dagster_among(modules) == set()
    assert rooms_of(modules) & DAGSTER_ROOMS == set()


def test_the_sandbox_imports_nothing_of_the_pipeline() -> None:
    modules = modules_in(sorted(SANDBOX.rglob("*.py")), SANDBOX)
    assert {module for module in modules if module.split(".")[0] == OURS} == set()
    assert dagster_among(modules) == set()


def test_the_domain_imports_the_standard_library_alone() -> None:
    tops = {module.split(".")[0] for module in imports_of("domain")}
    assert tops - sys.stdlib_module_names == {OURS}


def test_one_file_imports_private_names_of_dagster() -> None:
    """Imports, and module paths in strings: `dagster._core`, `dagster_postgres._x`."""
    private = re.compile(r"\bdagster(_[a-z]+)?\._")
    files = [file for file in PACKAGE.rglob("*.py") if private.search(file.read_text("utf-8"))]
    assert files == [PRIVATE_NAMES]


@pytest.mark.parametrize(
    ("source", "rooms", "dagster"),
    [
        ("import kpi_pipeline.sync.run", {"sync"}, set()),
        ("import kpi_pipeline.sync.run as w, os", {"sync"}, set()),
        ("from kpi_pipeline import sync, domain", {"sync", "domain"}, set()),
        ("from kpi_pipeline.sync.run import PartitionBlock", {"sync"}, set()),
        ("from ..sync.work import PartitionBlock", {"sync"}, set()),
        ("from .. import sync", {"sync"}, set()),
        ("from . import tables", {"db"}, set()),
        ("from .tables import clients", {"db"}, set()),
        ("def late():\n    import dagster as dg", set(), {"dagster"}),
        ("if True:\n    from dagster._core import x", set(), {"dagster"}),
        ("from dagster_postgres.utils import x", set(), {"dagster_postgres"}),
        ("import kpi_pipelines.sync, dagsters", set(), set()),
    ],
)
def test_an_import_is_seen_in_whatever_form_it_is_written(
    source: str, rooms: set[str], dagster: set[str]
) -> None:
    modules = set(imported_modules(source, "kpi_pipeline.db"))
    assert (rooms_of(modules), dagster_among(modules)) == (rooms, dagster)


# Imports the named module and all below it, and prints what was imported and what Dagster came in.
_IMPORTS_ALL = """
import importlib, pkgutil, sys
name = sys.argv[1]
module = importlib.import_module(name)
below = pkgutil.walk_packages(getattr(module, "__path__", []), name + ".")
names = [name, *(it.name for it in below if not it.name.endswith(".__main__"))]
for it in names:
    importlib.import_module(it)
print(len(names), *sorted({it.split(".")[0] for it in sys.modules if it.startswith("dagster")}))
"""


@pytest.mark.parametrize(
    ("name", "at_least"),
    [
        ("kpi_pipeline.db", 10),
        ("kpi_pipeline.sync.run", 1),
        ("kpi_pipeline.alerts", 5),
        ("kpi_pipeline.checks", 8),
        ("kpi_pipeline.gateway", 5),
        ("kpi_pipeline.web", 5),
        ("kpi_pipeline.dashboard", 5),
        ("kpi_pipeline.bison", 10),
        ("bison_sandbox", 10),
    ],
)
def test_importing_a_room_starts_no_dagster(name: str, at_least: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTS_ALL, name],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    count, *dagster = done.stdout.split()
    assert int(count) >= at_least
    assert dagster == []
