"""Who may import whom: read from the source text, and tried in a process of its own."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kpi_pipeline

ROOT = Path(kpi_pipeline.__file__).parent
OURS = kpi_pipeline.__name__

# A room is a folder or a file directly under the package.
MAY_IMPORT: dict[str, set[str]] = {
    "bison": set(),
    "sandbox": set(),
    "business_days": set(),
    "clock": set(),
    "errors": set(),
    "instances": set(),
    "settings": {"errors", "instances"},
    "columns": set(),
    "metrics": {"business_days", "columns"},
    "events": {"business_days", "columns"},
    "warehouse": {
        *("errors", "instances", "settings", "metrics", "business_days", "columns", "events"),
    },
    "inbox": {"business_days", "events", "warehouse"},
    "gateway": {
        *("business_days", "clock", "errors", "events", "health", "inbox", "settings"),
        "warehouse",
    },
    "deployment": {
        *("bison", "business_days", "clock", "errors", "inbox", "instances", "settings"),
        "warehouse",
    },
    "phrases": set(),
    "health": {
        *("business_days", "columns", "phrases", "settings", "warehouse"),
    },
    "alerting": {
        *("business_days", "deployment", "health", "phrases", "settings", "warehouse"),
    },
    "sync": {
        *("bison", "business_days", "deployment", "errors", "inbox", "settings", "warehouse"),
    },
}
DAGSTER_ROOMS = {
    "assets",
    "automation",
    "checks",
    "partitions",
    "definitions",
    "dagster_daemon",
    "dagster_storage",
    "code_server",
    "cli",
}


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
    single = ROOT / f"{room}.py"
    return [single] if single.exists() else sorted((ROOT / room).rglob("*.py"))


def package_of(file: Path) -> str:
    return ".".join([OURS, *file.relative_to(ROOT).parts[:-1]])


def imports_of(room: str) -> set[str]:
    files = files_of(room)
    assert files, f"there is no room {room}"
    return {
        module
        for file in files
        for module in imported_modules(file.read_text(encoding="utf-8"), package_of(file))
    }


def rooms_of(modules: set[str]) -> set[str]:
    """The rooms of ours among some modules."""
    parts = [module.split(".") for module in modules]
    return {names[1] for names in parts if names[0] == OURS and len(names) > 1}


def dagster_among(modules: set[str]) -> set[str]:
    tops = {module.split(".")[0] for module in modules}
    return {top for top in tops if top == "dagster" or top.startswith("dagster_")}


def all_rooms() -> list[str]:
    found = {path.stem for path in ROOT.glob("*.py")} - {"__init__"}
    found |= {path.name for path in ROOT.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    return sorted(found)


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_imports_no_other_room_than_it_may(room: str) -> None:
    assert rooms_of(imports_of(room)) - {room} <= MAY_IMPORT[room]


@pytest.mark.parametrize("room", [room for room in all_rooms() if room not in DAGSTER_ROOMS])
def test_dagster_stays_in_its_own_rooms(room: str) -> None:
    modules = imports_of(room)
    assert dagster_among(modules) == set()
    assert rooms_of(modules) & DAGSTER_ROOMS == set()


@pytest.mark.parametrize("room", [room for room in all_rooms() if room != "cli"])
def test_nothing_leans_on_the_command(room: str) -> None:
    assert "cli" not in rooms_of(imports_of(room))


def test_the_rooms_named_here_exist() -> None:
    assert {*MAY_IMPORT, *DAGSTER_ROOMS} <= set(all_rooms())
    assert dagster_among(imports_of("definitions")) == {"dagster"}


@pytest.mark.parametrize(
    ("source", "rooms", "dagster"),
    [
        ("import kpi_pipeline.sync.work", {"sync"}, set()),
        ("import kpi_pipeline.sync.work as w, os", {"sync"}, set()),
        ("from kpi_pipeline import sync, metrics", {"sync", "metrics"}, set()),
        ("from kpi_pipeline.sync.work import Rectangle", {"sync"}, set()),
        ("from ..sync.work import Rectangle", {"sync"}, set()),
        ("from .. import sync", {"sync"}, set()),
        ("from . import tables", {"warehouse"}, set()),
        ("from .tables import clients", {"warehouse"}, set()),
        ("def late():\n    import dagster as dg", set(), {"dagster"}),
        ("if True:\n    from dagster._core import x", set(), {"dagster"}),
        ("from dagster_postgres.utils import x", set(), {"dagster_postgres"}),
        ("import kpi_pipelines.sync, dagsters", set(), set()),
    ],
)
def test_an_import_is_seen_in_whatever_form_it_is_written(
    source: str, rooms: set[str], dagster: set[str]
) -> None:
    modules = set(imported_modules(source, "kpi_pipeline.warehouse"))
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
        ("kpi_pipeline.warehouse", 10),
        ("kpi_pipeline.sync.work", 1),
        ("kpi_pipeline.alerting", 5),
        ("kpi_pipeline.health", 9),
        ("kpi_pipeline.gateway", 5),
        ("kpi_pipeline.bison", 10),
        ("kpi_pipeline.sandbox", 10),
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
