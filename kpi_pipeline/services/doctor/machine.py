"""Checks of this machine: settings, the state folder, file modes, disk, versions, secret key."""

import os
import platform
import shutil
import stat
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from kpi_pipeline.db.registry.vault import key_file, open_vault
from kpi_pipeline.domain.formatting import counted, listed
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.doctor.examination import Examination
from kpi_pipeline.services.doctor.finding import Finding, good, problem, warning
from kpi_pipeline.settings import load_settings
from kpi_pipeline.settings.places import settings_file
from kpi_pipeline.settings.private_folders import FILE_MODE, FOLDER_MODE

_DISTRIBUTION = "kpi-pipeline"
_GIGABYTE = 1_000_000_000
# Below the first, people should see to it; below the second, logs and the embedded server stop.
_LITTLE_SPACE, _NO_SPACE = _GIGABYTE, _GIGABYTE // 10


def settings(examination: Examination) -> Iterator[Finding]:
    """Every variable KPI_… is a setting, and has a valid value."""
    try:
        examination.settings = load_settings()
    except KpiError as error:
        # The first line says where to correct them, the others name one variable each.
        head, *lines = str(error).splitlines()
        for line in lines or [head]:
            remedy = "Correct it in the environment or in the settings file." if lines else ""
            yield problem(f"{line.strip()}." if lines else line, remedy)
        return
    file = settings_file()
    yield good(f"All settings are valid; {f'{file} was read' if file else 'no file was read'}.")


def state_folder(examination: Examination) -> Iterator[Finding]:
    """The state folder can be written to."""
    folder = examination.settings.state_dir
    if (reason := _unusable(folder)) is not None:
        yield problem(reason, "Or set KPI_STATE_DIR to another folder.")
    else:
        yield good(f"The state folder is {folder}.")


def file_modes(examination: Examination) -> Iterator[Finding]:
    """No other user of this machine reads the state folder, or files with secrets."""
    folder = examination.settings.state_dir
    open_ones = list(_open_to_others(folder))
    for path in open_ones:
        mode = stat.S_IMODE(path.stat().st_mode)
        wanted = FOLDER_MODE if path.is_dir() else FILE_MODE
        yield problem(
            f"Other users of this machine can read {path} (mode {mode:o}).",
            f"Run `chmod {wanted:o} {path}`.",
            fix=_chmod(path, wanted),
        )
    if not open_ones:
        yield good("The state folder and all files with secrets are private.")


def _unusable(folder: Path) -> str | None:
    """Why the state folder cannot be written to, as a sentence with what to do."""
    existing = _existing(folder)
    if not existing.is_dir():
        return f"The state folder {folder} cannot be used: {existing} is a file. Move it away."
    if os.statvfs(existing).f_flag & os.ST_RDONLY:
        return f"The state folder {folder} is on a read-only file system. Mount it writable."
    if not os.access(existing, os.W_OK | os.X_OK):
        return f"This user may not write to {existing}. Run this as the folder's owner."
    return None


def _existing(path: Path) -> Path:
    """The path, or the nearest one above it that exists."""
    return next(it for it in (path, *path.parents) if it.exists())


def _open_to_others(folder: Path) -> Iterator[Path]:
    """The files with secrets, and the folders of logs, that other users of the machine can read."""
    # Run by root, the embedded server has a user of its own, who may pass through (x).
    others = 0o066 if os.geteuid() == 0 else 0o077
    if folder.is_dir() and folder.stat().st_mode & others:
        yield folder
    within = [key_file(folder), *sorted(folder.glob("secret.key.*")), folder / "demo.env"]
    within += [folder / "dagster", folder / "logs"]
    if (file := settings_file()) is not None:
        within.append(file)
    for path in within:
        if path.exists() and path.stat().st_uid == os.geteuid() and path.stat().st_mode & 0o077:
            yield path


def _chmod(path: Path, mode: int) -> Callable[[], str]:
    def fix() -> str:
        path.chmod(mode)
        return f"{path} has mode {mode:o} now."

    return fix


def disk(examination: Examination) -> Iterator[Finding]:
    """The disk of the state folder has space."""
    folder = _existing(examination.settings.state_dir)
    free = shutil.disk_usage(folder).free
    text = f"The disk of {folder} has {free / _GIGABYTE:,.1f} GB left."
    if free >= _LITTLE_SPACE:
        yield good(text)
        return
    found = problem if free < _NO_SPACE else warning
    yield found(text, "Free some space, or set KPI_STATE_DIR to a folder of a larger disk.")


def versions(_: Examination) -> Iterator[Finding]:
    """Each library that the pipeline needs is installed in a version that it was tested with."""
    wrong = [
        f"{it.name} {found or 'is missing'} (needed: {it.specifier or 'any'})"
        for it in _requirements()
        if (found := _version(it.name)) is None
        or not it.specifier.contains(found, prereleases=True)
    ]
    if wrong:
        yield problem(
            f"{counted(len(wrong), 'library')} of another version than needed: {listed(wrong)}.",
            "Install the pipeline again with its constraints: docs/operations.md says how.",
        )
        return
    yield good(
        f"kpi_pipeline {version(_DISTRIBUTION)} with Dagster {version('dagster')} on Python "
        f"{platform.python_version()}."
    )


def _requirements() -> list[Requirement]:
    """What the installed pipeline needs on this machine, without its extras."""
    needed = [Requirement(it) for it in requires(_DISTRIBUTION) or ()]
    return [it for it in needed if it.marker is None or it.marker.evaluate({"extra": ""})]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def secret_key(examination: Examination) -> Iterator[Finding]:
    """The secret key that encrypts the API keys is a Fernet key."""
    configured, folder = examination.settings.secret_key, examination.settings.state_dir
    place = "KPI_SECRET_KEY" if configured else str(key_file(folder))
    if configured is None and not key_file(folder).exists():
        # It is made where the first key is stored. One that was lost, `stored-keys` finds out.
        yield good(f"{place} is generated at the first start.")
        return
    vault = open_vault(configured, folder)
    if vault.has_old_keys:
        yield warning(
            f"{place} holds more than one secret key, as while one is replaced.",
            "Run `kpi secret-key rotate`, and then remove the old ones.",
        )
    else:
        yield good(f"The API keys are encrypted under {place}.")
