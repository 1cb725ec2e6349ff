"""Questions on a terminal, each asked until its answer passes a test."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import typer
from rich.markup import escape
from sqlalchemy import make_url

from kpi_pipeline.cli.common import err
from kpi_pipeline.db.server.urls import parse_url
from kpi_pipeline.errors import KpiError

T = TypeVar("T")


@dataclass(frozen=True)
class Questions:
    """Asks on a terminal until an answer passes its test; elsewhere takes what is known."""

    interactive: bool

    def ask(
        self,
        label: str,
        option: str,
        test: Callable[[str], T],
        *,
        given: str | None,
        current: str | None,
        shown: str | None = None,
        hidden: bool = False,
    ) -> T:
        """What `test` makes of the option, or of the answer, or of the current value.

        `shown` is the current value as people may see it; unset: as it is.
        """
        if given is not None:
            return test(given)
        if not self.interactive:
            if current is None:
                raise KpiError(f"{label}: it is not known. Give {option}.")
            return test(current)
        now = current if shown is None else shown
        while True:
            answer = self.line(f"{label}{f' [{now}]' if now else ''}", hidden=hidden)
            if not answer and current is None:
                continue
            try:
                return test(answer or current or "")
            except KpiError as error:
                err.print(f"[red]✗[/red] {escape(str(error))}", soft_wrap=True)

    def line(self, label: str, *, hidden: bool) -> str:
        """One line from the terminal; a hidden one is not shown while it is typed."""
        answer = typer.prompt(label, default="", show_default=False, hide_input=hidden, err=True)
        return str(answer).strip()

    def with_password(self, address: str, setting: str) -> str:
        """The address of a database, with a password that is asked for if it has none.

        Raises:
            KpiError: if it is no such address; the message names `setting`.
        """
        url = parse_url(address, setting)
        if self.interactive and url.username and url.password is None:
            label = f"Password of {url.username} (hidden; empty: none)"
            if password := self.line(label, hidden=True):
                added = make_url(address).set(password=password)
                return added.render_as_string(hide_password=False)
        return address


def text_of(name: str | None) -> str | None:
    """The text of the file with that name, or of standard input for `-`; None without a name.

    Raises:
        KpiError: if it can't be read.
    """
    if name is None:
        return None
    try:
        return (sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")).strip()
    except (OSError, UnicodeDecodeError):
        raise KpiError(f"{name} can't be read as text. Check the name.") from None
