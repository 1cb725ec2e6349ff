"""Who sends a request to a web page, and what that person may do."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a person may do with a page."""

    VIEWER = "viewer"
    EDITOR = "editor"


@dataclass(frozen=True)
class Visitor:
    """Who sent a request.

    `name` is shown, and noted beside what the visitor changes. `session` differs for each login,
    and is empty where a page has no login.
    """

    name: str
    role: Role
    session: str = ""

    @property
    def may_edit(self) -> bool:
        """Whether the visitor may change something."""
        return self.role is Role.EDITOR


# Everybody, where a page has no login and listens on this machine alone.
LOCAL = Visitor("local", Role.EDITOR)
