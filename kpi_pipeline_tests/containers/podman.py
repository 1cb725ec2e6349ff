"""Podman where no engine runs, no image can be pulled, and systemd is not the first process.

The base image is made of Debian's packages, and the image of the pipeline from its Dockerfile, with
wheels that were downloaded before. The base stays, so a second run of these tests is faster.
"""

import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kpi_pipeline_tests import PROJECT_ROOT

# All containers, networks and volumes of these tests have this in their names.
PREFIX = "kpi-test-"
IMAGE = "localhost/kpi-pipeline:test"
# Stands for the images of PostgreSQL and Caddy, which have these programs of other packages.
SERVERS = "localhost/kpi-test-servers:bookworm"
_BASE = "localhost/kpi-test-base:bookworm"
_CONFIGURATION = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
"""
_SERVERS_FILE = f"""
FROM {_BASE}
RUN apt-get update -qq \\
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \\
        postgresql-15 caddy wget >/dev/null
ENV PATH=/usr/lib/postgresql/15/bin:$PATH XDG_DATA_HOME=/data XDG_CONFIG_HOME=/config
"""


def require_podman() -> None:
    """Skip the test where podman is not installed, unless KPI_TEST_CONTAINERS=required."""
    missing = [it for it in ("podman", "buildah", "runc", "debootstrap") if not shutil.which(it)]
    if os.geteuid() != 0:
        missing.append("root's rights")
    if missing:
        reason = f"needs {', '.join(missing)}"
        if os.environ.get("KPI_TEST_CONTAINERS") == "required":
            pytest.fail(reason)
        pytest.skip(reason)


@functools.cache
def _environment() -> dict[str, str]:
    file = Path(tempfile.gettempdir()) / "kpi-test-containers.conf"
    file.write_text(_CONFIGURATION)
    return {**os.environ, "CONTAINERS_CONF": str(file)}


def run(*words: str, seconds: float = 300, stdin: str | None = None, both: bool = False) -> str:
    """What a command printed; with `both`, its errors as well."""
    done = subprocess.run(
        words,
        env=_environment(),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    if done.returncode:
        said = f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        raise AssertionError(f"{' '.join(words)} ended with {done.returncode}:\n{said}")
    return done.stdout + (done.stderr if both else "")


def succeeds(*words: str) -> bool:
    """Whether a command ends with 0, within a minute."""
    try:
        done = subprocess.run(
            words, env=_environment(), capture_output=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def remove_all() -> None:
    """Remove the containers, volumes and networks of these tests."""
    for kind, words in (
        ("pod", ["pod", "rm", "-f"]),
        ("container", ["rm", "-f", "-t", "1"]),
        ("volume", ["volume", "rm", "-f"]),
        ("network", ["network", "rm", "-f"]),
    ):
        listing = ["podman", kind, "ls", "--filter", f"name={PREFIX}", "--format"]
        listing += ["{{.Names}}" if kind == "container" else "{{.Name}}"]
        found = run(*listing, *(["-a"] if kind == "container" else [])).split()
        if found:
            run("podman", *words, *found)
    # The name that kpi.yaml refers to.
    succeeds("podman", "secret", "rm", "kpi")


def build(folder: Path) -> str:
    """Build the Dockerfile, here and now; the name of the image.

    `folder` takes the wheels. The image of the two servers is built beside it.
    """
    with ThreadPoolExecutor() as threads:
        downloaded = threads.submit(_download, folder)
        _make_base()
        servers = threads.submit(_make_servers, folder)
        run("podman", "tag", _BASE, base_name())
        wheels = downloaded.result()
        run(
            *("buildah", "build", "--isolation", "chroot", "--network", "host", "--pull-never"),
            *("--build-arg", "PIP_NO_INDEX=1", "--build-arg", "PIP_FIND_LINKS=/mnt"),
            *("--volume", f"{wheels}:/mnt:ro", "--tag", IMAGE, str(PROJECT_ROOT)),
            seconds=600,
        )
        servers.result()
    return IMAGE


def base_name() -> str:
    """The image on which the Dockerfile builds."""
    text = (PROJECT_ROOT / "Dockerfile").read_text()
    return str(re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", text, re.MULTILINE)[0])


def _make_base() -> None:
    """Debian 12 with its Python, as the base image has another one; made once."""
    if succeeds("podman", "image", "exists", _BASE):
        return
    with tempfile.TemporaryDirectory(prefix="kpi-base-") as root:
        sources = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
        mirror = next(it for it in sources.split() if it.rstrip("/").endswith("/debian"))
        programs = "--include=python3,python3-venv,ca-certificates"
        run("debootstrap", "--variant=minbase", programs, "bookworm", root, mirror, seconds=600)
        shutil.rmtree(f"{root}/var/cache/apt/archives")
        packed = Path(f"{root}.tar")
        try:
            run("tar", "-C", root, "-cf", str(packed), ".")
            run("podman", "import", "-q", str(packed), _BASE)
        finally:
            packed.unlink(missing_ok=True)


def _make_servers(folder: Path) -> None:
    if succeeds("podman", "image", "exists", SERVERS):
        return
    file = folder / "Servers"
    file.write_text(_SERVERS_FILE)
    run(
        *("buildah", "build", "--isolation", "chroot", "--network", "host", "--pull-never"),
        *("--tag", SERVERS, "--file", str(file), str(folder)),
    )


def _download(folder: Path) -> Path:
    """Download the wheels that the Dockerfile installs; the folder with them.

    With pip's settings of this machine, of which nothing gets into the image.
    """
    wheels, build = folder / "wheels", folder / "build.txt"
    constraints = (PROJECT_ROOT / "constraints.txt").read_text()
    found = re.search(r"^setuptools==.*?[^\\]$", constraints, re.MULTILINE | re.DOTALL)
    assert found is not None
    build.write_text(found[0])
    run(
        *(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"),
        *("--python-version", "3.11", "--require-hashes", "-d", str(wheels)),
        *("-r", str(build), "-r", str(PROJECT_ROOT / "requirements.txt")),
        seconds=600,
    )
    return wheels
