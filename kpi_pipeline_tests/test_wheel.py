"""The installed wheel is the product: it works away from the checkout, in an empty folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from kpi_pipeline_tests import PROJECT_ROOT

pytestmark = pytest.mark.server

_PACKAGES = ("kpi_pipeline", "bison_sandbox")
_SOURCES = (*_PACKAGES, "pyproject.toml", "README.md", "dagster.yaml", "workspace.yaml")
_DATA = {
    "kpi_pipeline/config/dagster.yaml",
    "kpi_pipeline/config/workspace.yaml",
    "kpi_pipeline/db/migrations/script.py.mako",
    "kpi_pipeline/py.typed",
    "bison_sandbox/py.typed",
    *(
        str(file.relative_to(PROJECT_ROOT))
        for folder in ("templates", "static")
        for file in (PROJECT_ROOT / "kpi_pipeline" / "dashboard" / folder).rglob("*.*")
    ),
}
_BUILD = (
    "import sys; from setuptools import build_meta as b; print(getattr(b, sys.argv[1])('dist'))"
)


@dataclass(frozen=True)
class Installed:
    """A virtual environment with the wheel, and an empty folder to work in."""

    environment: Path
    folder: Path

    def run(self, *command: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment as a user would who has never seen the checkout."""
        hidden = ("KPI_", "DAGSTER_", "PYTHON", "XDG_", "VIRTUAL_ENV")
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(hidden)
        }
        environment |= {
            "HOME": str(self.environment.parent / "home"),
            # Other tests use the default ports at the same time.
            "KPI_WEB_PORT": "0",
            "KPI_GATEWAY_PORT": "0",
            "KPI_DASHBOARD_PORT": "0",
        }
        program, *words = command
        return subprocess.run(
            [self.environment / "bin" / program, *words],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that the embedded server can enter: run by root, it works as another user."""
    path = Path(tempfile.mkdtemp(prefix="kpi-wheel-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def sources(folder: Path) -> Path:
    """The project's files, without what earlier builds left beside them."""
    copy = folder / "sources"
    copy.mkdir()
    for name in _SOURCES:
        source = PROJECT_ROOT / name
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, copy / name, symlinks=True, ignore=ignore)
        else:
            shutil.copy(source, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(sources: Path) -> Path:
    return _built(sources, "build_wheel")


@pytest.fixture(scope="module")
def installed(folder: Path, wheel: Path) -> Installed:
    """The wheel, installed by pip; what it depends on is that of these tests."""
    environment = folder / "environment"
    _run([sys.executable, "-m", "venv", str(environment)], folder)
    python = environment / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*install, "--no-deps", "--no-index", str(wheel)], folder)
    purelib = _run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder
    )
    # A line of a .pth file adds a folder, but not what the .pth files of that folder add: among
    # them is that of the editable installation.
    (Path(purelib) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for name in ("home", "empty"):
        (folder / name).mkdir()
    return Installed(environment, folder / "empty")


def _built(sources: Path, what: str) -> Path:
    return sources / "dist" / _run([sys.executable, "-c", _BUILD, what], sources).splitlines()[-1]


def _run(command: Sequence[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as opened:
        return {name for name in opened.namelist() if ".dist-info/" not in name}


def test_the_wheel_has_every_file_of_both_packages_and_no_other(wheel: Path) -> None:
    code = {
        str(file.relative_to(PROJECT_ROOT))
        for package in _PACKAGES
        for file in (PROJECT_ROOT / package).rglob("*.py")
    }
    assert _names(wheel) == code | _DATA


def test_the_configuration_of_dagster_is_that_of_the_top_level(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        for name in ("dagster.yaml", "workspace.yaml"):
            packed = opened.read(f"kpi_pipeline/config/{name}")
            assert packed == (PROJECT_ROOT / name).read_bytes()


def test_a_source_distribution_makes_the_same_wheel(sources: Path, wheel: Path) -> None:
    with tarfile.open(_built(sources, "build_sdist")) as opened:
        opened.extractall(sources / "unpacked", filter="data")
    (unpacked,) = (sources / "unpacked").iterdir()
    assert _names(_built(unpacked, "build_wheel")) == _names(wheel)


@pytest.mark.long
def test_the_installed_code_is_not_that_of_the_checkout(installed: Installed) -> None:
    program = "import kpi_pipeline, bison_sandbox as b; print(kpi_pipeline.__file__, b.__file__)"
    for path in installed.run("python", "-c", program).stdout.split():
        assert Path(path).is_relative_to(installed.environment)


@pytest.mark.long
def test_the_version_is_that_of_the_project(installed: Installed) -> None:
    version = (PROJECT_ROOT / "pyproject.toml").read_text().split('version = "')[1].split('"')[0]
    assert installed.run("kpi", "--version").stdout == f"kpi_pipeline {version}\n"


@pytest.mark.long
def test_the_demo_works_from_an_empty_folder_and_keeps_its_state_with_the_user(
    installed: Installed,
) -> None:
    demo = installed.run("kpi", "demo", "--once", "--days", "3")
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "26 of 26 clients ok" in demo.stdout

    metrics = installed.run("kpi", "--demo", "metrics")
    assert metrics.returncode == 0, metrics.stdout + metrics.stderr
    assert metrics.stderr.startswith("26 of 26 clients have a row on ")

    assert list(installed.folder.iterdir()) == []
    home = installed.environment.parent / "home"
    states = [path.parent for path in home.rglob("demo/demo.env")]
    assert [path.parent.name for path in states] == ["kpi_pipeline"]
