"""Who sends a request to a web page, and what that person may do."""

import re
from dataclasses import dataclass
from enum import StrEnum

from kpi_pipeline.db.registry.targets import IMPORT

_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")


class Role(StrEnum):
    """What a person may do with a page."""

    VIEWER = "viewer"
    EDITOR = "editor"


@dataclass(frozen=True)
class Visitor:
    """Who sent a request.

    `name` is shown, and noted beside what the visitor changes. `session` differs for each login,
    and is empty where a page has none. `can_log_out` is whether the visitor has a session to end:
    programs, and users whom a proxy logs in, have none.
    """

    name: str
    role: Role
    session: str = ""
    can_log_out: bool = False

    @property
    def may_edit(self) -> bool:
        """Whether the visitor may change something."""
        return self.role is Role.EDITOR


# Everybody, where a page has no login and listens on this machine alone.
LOCAL = Visitor("local", Role.EDITOR)
# The names of visitors with the passwords of the settings.
SHARED_NAMES = {Role.EDITOR: "operator", Role.VIEWER: "reader"}
# Commands of this installation, which have its database at hand.
COMMAND = "kpi"
# The history of targets has the names of users, and this one for changes by an import.
RESERVED_NAMES = frozenset({LOCAL.name, COMMAND, IMPORT, *SHARED_NAMES.values()})


def is_user_name(name: str) -> bool:
    """Whether a user may be called so: letters of ASCII in lower case, digits and a few signs."""
    return _NAME.fullmatch(name) is not None and name not in RESERVED_NAMES
