"""The operating system's user that the server runs as: PostgreSQL refuses to run as root."""

import os
import pwd
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from kpi_pipeline.errors import KpiError

_NAME = "pgserver"
_ENTER_ALL = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


@dataclass(frozen=True)
class ServerUser:
    """A user by numbers; a folder may belong to one that has no name."""

    uid: int
    gid: int

    def may_enter(self, folder: Path) -> bool:
        """Whether this user may reach what is in the folder, by the folder's own mode."""
        found = folder.stat()
        if found.st_uid == self.uid:
            return bool(found.st_mode & stat.S_IXUSR)
        if found.st_gid == self.gid:
            return bool(found.st_mode & stat.S_IXGRP)
        return bool(found.st_mode & stat.S_IXOTH)


def server_user(data: Path) -> ServerUser | None:
    """The other user to run the server of `data` as; None for this user.

    Root runs it as the owner of the data or of their folder, who uses it, too. If that is root, it
    gets a user of its own, who is added to the system.

    Raises:
        KpiError: if the user can't be added.
    """
    if os.geteuid() != 0:
        return None
    for folder in (data, data.parent):
        if folder.exists() and (owner := folder.stat()).st_uid != 0:
            return ServerUser(owner.st_uid, owner.st_gid)
    try:
        entry = pwd.getpwnam(_NAME)
    except KeyError:
        entry = _added()
    return ServerUser(entry.pw_uid, entry.pw_gid)


def let_in(user: ServerUser, state_dir: Path, programs: Path) -> None:
    """Let the user reach its data in root's state folder, and the programs.

    The state folder is opened to this user alone. A folder above one of them may be passed
    through by all users from now on (x), where that is needed, but not listed (r).
    """
    if not user.may_enter(state_dir):
        os.chown(state_dir, -1, user.gid)
        _add_mode(state_dir, stat.S_IXGRP)
    for folder in {*state_dir.resolve().parents, *programs.resolve().parents}:
        if not user.may_enter(folder):
            _add_mode(folder, stat.S_IXOTH)
    # Installed with a umask of 077, they are root's alone.
    installed = programs.parent
    if not (programs / "postgres").stat().st_mode & stat.S_IROTH:
        for path in [installed, *installed.rglob("*")]:
            mode = path.stat().st_mode
            read = stat.S_IRGRP | stat.S_IROTH
            _add_mode(path, read | (_ENTER_ALL if mode & stat.S_IXUSR else 0))


def _add_mode(path: Path, bits: int) -> None:
    path.chmod(stat.S_IMODE(path.stat().st_mode) | bits)


def _added() -> pwd.struct_passwd:
    command = ["useradd", "--system", "--shell", "/bin/false", _NAME]
    try:
        # It fails if another process has just done the same.
        subprocess.run(command, check=False, capture_output=True)  # noqa: S603 - no one's input
        return pwd.getpwnam(_NAME)
    except (OSError, KeyError):
        raise KpiError(
            f"PostgreSQL does not run as root, and the user {_NAME} cannot be added. Run "
            f"`{' '.join(command)}`, or run this as another user than root."
        ) from None
