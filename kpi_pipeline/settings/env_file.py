"""Writes settings into the settings file, and leaves all its other lines as they are."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from dotenv import dotenv_values, set_key

from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings import Settings, load_settings
from kpi_pipeline.settings.private_folders import FILE_MODE

_HEADER = "# Settings of kpi_pipeline. README.md explains each; `kpi init` changes some of them.\n"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def file_to_write() -> Path:
    """The settings file that every command reads from this folder, whether it exists or not.

    Raises:
        KpiError: if KPI_ENV_FILE says that there is none.
    """
    named = os.environ.get("KPI_ENV_FILE")
    if named == "":
        raise KpiError(
            "KPI_ENV_FILE is set but empty, so no command reads a settings file. Unset it, or name "
            "the file to write."
        )
    # The file behind a link is replaced, not the link.
    return Path(named or ".env").absolute().resolve()


def settings_with(file: Path) -> Settings:
    """The settings of the environment and of this file, which may not exist yet."""
    with _variable("KPI_ENV_FILE", str(file) if file.exists() else ""):
        return load_settings()


def values_in(file: Path) -> dict[str, str]:
    """The names and values that the settings file sets; none if there is no file."""
    if not file.exists():
        return {}
    found = dotenv_values(file, encoding="utf-8-sig")
    return {name: value for name, value in found.items() if value is not None}


def other_in_environment(values: Mapping[str, str]) -> list[str]:
    """The variables to which the environment, which goes before the file, gives other values."""
    # A blank variable counts as unset.
    return [name for name, it in values.items() if os.environ.get(name) not in (None, "", it)]


def write_settings(file: Path, values: Mapping[str, str]) -> list[str]:
    """Set these variables in the settings file, readable by its owner alone; return what changed.

    A blank value unsets a variable. Comments, other variables and their order stay. The file is
    replaced as a whole: after a crash it is the old one or the new one.

    Raises:
        KpiError: if it can't be written, or a value can't be a line of it.
    """
    before = values_in(file)
    changes = {name: it for name, it in values.items() if it != before.get(name, "")}
    try:
        if not changes:
            if file.exists():
                file.chmod(FILE_MODE)
            return []
        descriptor, name = tempfile.mkstemp(prefix=f"{file.name}.", dir=file.parent)
        draft = Path(name)
        try:
            old = file.read_bytes() if file.exists() else _HEADER.encode()
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(old.removeprefix(_BYTE_ORDER_MARK))
            for variable, value in changes.items():
                _set(draft, variable, value)
            _keep_owner(file, draft)
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise KpiError(
            f"The settings file {file} can't be written: {error.strerror}. Nothing was changed; "
            "check the folder, and run it again."
        ) from None
    return list(changes)


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _set(draft: Path, variable: str, value: str) -> None:
    # Without quotes where it can be: `docker --env-file` takes quotes as a part of the value.
    for quotes in ("never", "always") if value.isprintable() else ():
        set_key(draft, variable, value, quote_mode=quotes)
        if dotenv_values(draft).get(variable) == value:
            return
    raise KpiError(
        f"The value of {variable} can't be written into a settings file. In the password of an "
        "address, write $ as %24."
    )


def _keep_owner(file: Path, draft: Path) -> None:
    """Run by root, the file still belongs to the user who reads it."""
    if file.exists():
        owner = file.stat()
        with suppress(PermissionError):
            os.chown(draft, owner.st_uid, owner.st_gid)
