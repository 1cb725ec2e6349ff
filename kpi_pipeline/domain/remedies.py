"""What people do about missing or old rows: one wording for checks, alerts and errors."""

from collections.abc import Sequence
from datetime import date

# A command names so many clients, and covers all clients where more are concerned.
_CLIENTS_NAMED = 10

ON_THE_PAGE = (
    "select these partitions on the page of raw_bison_stats, kpi_projections or client_metrics, "
    "and press Materialize: each of the three fetches the facts and fills all three"
)


def backfill_command(first: date, last: date, workspaces: Sequence[str]) -> str:
    """The command that fetches and computes these dates again, for these clients."""
    return _command("kpi backfill", first, last, workspaces)


def recompute_command(first: date, last: date, workspaces: Sequence[str]) -> str:
    """The command that computes the rows of these dates again, without a call."""
    return _command("kpi recompute", first, last, workspaces)


def fill(first: date, last: date, workspaces: Sequence[str]) -> str:
    """How to fill dates that are missing, with the command and on the page: a sentence."""
    command = backfill_command(first, last, workspaces)
    return f"Fill them with `{command}`, or {ON_THE_PAGE}."


def _command(name: str, first: date, last: date, workspaces: Sequence[str]) -> str:
    few = workspaces if len(workspaces) <= _CLIENTS_NAMED else ()
    return " ".join([f"{name} --from {first} --to {last}", *(f"-w {it}" for it in few)])
