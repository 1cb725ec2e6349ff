"""Folders that no other user of the machine may enter: the state folder, and what events leave."""

import os
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

FOLDER_MODE, FILE_MODE = 0o700, 0o600
# What an installation has in its state folder. With anything else in it, such as in /srv, the
# folder may have other users.
_OURS = (
    *("postgres", "postgres.*", "dagster", "logs", "events", "demo", "demo.env"),
    *("secret.key", "secret.key.*", "parts.*", "connections", "dumps", "lost+found"),
)


def private_folder(folder: Path) -> bool:
    """Create the folder, or make it private with all files in it; False if it is another's."""
    folder.mkdir(exist_ok=True, mode=FOLDER_MODE)
    if folder.stat().st_mode & 0o777 == FOLDER_MODE:
        return True
    try:
        folder.chmod(FOLDER_MODE)
    except PermissionError:
        return False
    # An earlier version left its files readable.
    for path in files_of(folder):
        make_private(path)
    return True


def make_private(path: Path) -> None:
    """Have the owner of the file alone read it."""
    if path.stat().st_mode & 0o777 != FILE_MODE:
        # Its owner alone may change it; in any case, the folder keeps all others out.
        with suppress(PermissionError):
            path.chmod(FILE_MODE)


def files_of(folder: Path) -> Iterator[Path]:
    """The regular files of the folder."""
    return (it for it in folder.iterdir() if it.is_file() and not it.is_symlink())


def private_state(state_dir: Path) -> str | None:
    """Create the state folder, or make it private; a sentence about that, if it was not.

    The folder keeps its mode if it belongs to another user, or holds what is not ours. The logs
    and Dagster's files in it are private in any case, and all that is secret has modes of its own.
    """
    state_dir.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
    for name in ("dagster", "logs"):
        private_folder(state_dir / name)
    mode = state_dir.stat().st_mode & 0o777
    # Run by root, the embedded server has a user of its own, who may pass through (x).
    others = 0o066 if os.geteuid() == 0 else 0o077
    if not mode & others:
        return None
    found = f"Other users of this machine may open the state folder {state_dir} (mode {mode:o})"
    is_shared = any(
        not any(fnmatch(it.name, pattern) for pattern in _OURS) for it in state_dir.iterdir()
    )
    if is_shared:
        return (
            f"{found}. It has other files as well, so its mode stays: set KPI_STATE_DIR to a "
            f"folder of its own, or run `chmod 700 {state_dir}`."
        )
    try:
        state_dir.chmod(FOLDER_MODE)
    except PermissionError:
        return f"{found}. Its owner has to run `chmod 700 {state_dir}`."
    return f"{found.replace(' may ', ' might ')}. It is private now, with mode 700."
