"""Where an installation keeps its state, and its settings file."""

import errno
import os
import shutil
import tomllib
from contextlib import suppress
from pathlib import Path

from platformdirs import user_state_path

from kpi_pipeline.errors import KpiError

_FULL_BYTES = 1_000_000


def default_state_dir() -> Path:
    """`.kpi` in the checkout that this code runs from, else the state folder of this user."""
    folder = Path(__file__).resolve().parents[2]
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]["name"]
    except (OSError, ValueError, LookupError):
        project = None
    return folder / ".kpi" if project == "kpi-pipeline" else user_state_path("kpi_pipeline")


def settings_file() -> Path | None:
    """`.env` of the working folder, if there is one, or the file that KPI_ENV_FILE names.

    Raises:
        KpiError: if that is no file.
    """
    named = os.environ.get("KPI_ENV_FILE")
    if named is None:
        file = Path.cwd() / ".env"
        return file if file.is_file() else None
    if named and not Path(named).is_file():
        raise KpiError(f"KPI_ENV_FILE names {named}, which is not a file. Check the name.")
    return Path(named) if named else None


def state_folder_error(state_dir: Path, error: OSError) -> KpiError:
    """The error of a state folder that can't be used, as a sentence that says what to do."""
    where = error.filename or state_dir
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            problem, remedy = f"The disk of the state folder {state_dir} is full", "Free some space"
        case errno.EROFS:
            problem = f"The state folder {state_dir} is on a read-only file system"
            remedy = "Mount it writable"
        case errno.EACCES | errno.EPERM:
            problem = (
                f"This user may not use the state folder {state_dir}: no permission for {where}"
            )
            remedy = "Run this as the folder's owner"
        case errno.EEXIST | errno.ENOTDIR:
            problem = f"The state folder {state_dir} cannot be made: a file is in its place"
            remedy = "Move the file away"
        case _:
            problem = f"The state folder {state_dir} cannot be used: {error.strerror} ({where})"
            remedy = "Correct that"
    return KpiError(f"{problem}. {remedy}, or set KPI_STATE_DIR to another folder.")


def concerns_state_folder(state_dir: Path, error: OSError) -> bool:
    """Whether the error is about a file in the state folder, the folder, or one above it."""
    if error.filename is None:
        # A write has no name. Other disks may be full, too.
        with suppress(OSError):
            full = shutil.disk_usage(state_dir).free < _FULL_BYTES
            return full and error.errno in (errno.ENOSPC, errno.EDQUOT)
        return False
    where = Path(os.fsdecode(error.filename))
    return where.is_relative_to(state_dir) or state_dir.is_relative_to(where)
