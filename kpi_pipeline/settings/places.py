"""Where an installation keeps its state, and its settings file."""

import errno
import os
import tomllib
from pathlib import Path

from platformdirs import user_state_path

from kpi_pipeline.errors import KpiError


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
    elsewhere = "or set KPI_STATE_DIR to another folder."
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return KpiError(
                f"The disk of the state folder {state_dir} is full. Free some space, {elsewhere}"
            )
        case errno.EROFS:
            return KpiError(
                f"The state folder {state_dir} is on a read-only file system. Mount it writable, "
                f"{elsewhere}"
            )
        case errno.EACCES | errno.EPERM:
            return KpiError(
                f"This user may not use the state folder {state_dir} (no permission for "
                f"{error.filename or state_dir}). Run this as the folder's owner, {elsewhere}"
            )
        case _:
            return KpiError(
                f"The state folder {state_dir} cannot be used: {error.strerror or error} "
                f"({error.filename or state_dir}). Correct that, {elsewhere}"
            )
