"""The two checks that call Email Bison: `totals_match_bison` and `registry_matches_bison`."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date, timedelta

from sqlalchemy import Connection

from kpi_pipeline.checks.outcome import UNANSWERED, Check, Outcome, ProblemRow, Severity, outcome
from kpi_pipeline.db.check_queries.totals import PeriodSums, read_sums
from kpi_pipeline.domain.calendar import first_of_month
from kpi_pipeline.domain.formatting import counted, listed
from kpi_pipeline.domain.outside_names import visible
from kpi_pipeline.domain.remedies import backfill_command

# Without replies: Email Bison's total counts a contact once, its daily series counts each reply.
_COMPARED = {
    "sent": "emails sent",
    "interested": "positive replies",
    "bounced": "bounces",
    "unsubscribed": "unsubscribes",
}


def period_to_compare(today: date) -> tuple[date, date]:
    """The closed days of yesterday's month: on the first of a month, the whole month before."""
    yesterday = today - timedelta(days=1)
    return first_of_month(yesterday), yesterday


def totals_match_bison(
    connection: Connection,
    totals: Mapping[str, Mapping[str, int]],
    unasked: Mapping[str, str],
    unanswered: Mapping[str, str],
    first: date,
    last: date,
) -> Outcome:
    """The facts of `first` … `last` add up to Email Bison's own `totals`, by client and count.

    The counts are sent, interested, bounced and unsubscribed. `unasked` and `unanswered` hold a
    reason for each client without totals: a problem of the client's own, such as a rejected key,
    or no answer from Email Bison.
    """
    sums = read_sums(connection, first, last)
    number_of_days = (last - first).days + 1
    problems = [
        *(row for it in sums for row in _compared(it, totals.get(it.workspace), number_of_days)),
        *({**_count(name, "could not be asked"), "why": why} for name, why in unasked.items()),
        *({**_count(name, UNANSWERED), "why": why} for name, why in unanswered.items()),
    ]
    names = list(dict.fromkeys(str(row["workspace"]) for row in problems))
    matching = sum(it.workspace in totals and it.workspace not in names for it in sums)
    match = "matches" if len(sums) == 1 else "match"
    compared = f"{matching} of {counted(len(sums), 'client')} {match} Email Bison's own totals"
    return outcome(
        Check.TOTALS_MATCH_BISON,
        problems,
        if_passed=f"{compared}, {first} to {last}.",
        if_failed=f"{compared}, {first} to {last}; not: {listed(names)}. Email Bison may have "
        f"revised older days since they were fetched: `{backfill_command(first, last, names)}` "
        "fetches them again; then execute this check again. If it still differs, compare with "
        "Email Bison's own page. Unanswered requests are repeated every hour.",
        severity=Severity.WARN,
        numbers={"clients": len(sums), "matching": matching},
    )


def _compared(
    sums: PeriodSums, totals: Mapping[str, int] | None, number_of_days: int
) -> Iterator[ProblemRow]:
    if totals is None:
        return
    if sums.days < number_of_days:
        yield _count(sums.workspace, "days with facts", sums.days, number_of_days)
        return
    for name, words in _COMPARED.items():
        if sums.sums[name] != totals[name]:
            yield _count(sums.workspace, words, sums.sums[name], totals[name])


def _count(
    workspace: str, count: str, ours: int | None = None, bison: int | None = None
) -> dict[str, str | int | None]:
    return {"workspace": workspace, "count": count, "ours": ours, "bison": bison, "why": None}


# Each kind of finding, and what to do about it. Clients with one of `_ERRORS` get no numbers.
_WHAT_TO_DO = {
    "unserved": "add the instance with its master key to KPI_BISON_INSTANCES, or give the client "
    "an api_key of its own in the CSV",
    "bad_keys": "`kpi keys rotate CLIENT` replaces a rejected key",
    "unread": "the list of workspaces could not be read: fix what is named, and materialize "
    "client_registry again",
    "unanswered": "the list of workspaces is requested again every hour until Email Bison answers",
    "vanished": "import a client that left with active = no",
    "unchecked_keys": "their keys are checked again within the hour",
    "unknown": "import new workspaces that are clients (`kpi clients import`), with their target",
    "webhooks": "`kpi webhooks register` creates missing ones, deletes doubled ones and removes "
    "foreign events, `--delete-dead` also deletes dead ones; until then some events are missed or "
    "arrive in vain, and the numbers follow with the next sync",
    "unchecked_webhooks": "their webhooks are read again within the hour",
    "renamed": "new names are adopted; set display_name in the CSV for a label of your own",
}
_ERRORS = ("unserved", "bad_keys", "unread", "unanswered")


def registry_matches_bison(
    findings: Mapping[str, Sequence[str]], clients: Collection[str], listed_workspaces: int
) -> Outcome:
    """The registered clients, their keys and webhooks are as in Email Bison; `findings` by kind.

    A line that concerns one of `clients` begins with its workspace and a colon.
    """
    found = {kind: findings.get(kind, ()) for kind in _WHAT_TO_DO}
    problems = [_finding(kind, line, clients) for kind, lines in found.items() for line in lines]
    names = list(dict.fromkeys(str(it["workspace"] or it["what"]) for it in problems))
    listed_ones = counted(listed_workspaces, "workspace")
    compared = f"{counted(len(clients), 'active client')}, {listed_ones} listed"
    what_to_do = "; ".join(
        f"{kind.replace('_', ' ')}: {text}" for kind, text in _WHAT_TO_DO.items() if found[kind]
    )
    return outcome(
        Check.REGISTRY_MATCHES_BISON,
        problems,
        if_passed=f"{compared}: each is a workspace of Email Bison, and its key is good.",
        if_failed=f"{compared}; problems: {listed(names, 3)}. "
        f"{what_to_do[:1].upper()}{what_to_do[1:]}.",
        severity=Severity.ERROR if any(found[kind] for kind in _ERRORS) else Severity.WARN,
        numbers={kind: len(lines) for kind, lines in found.items()},
    )


def _finding(kind: str, line: str, clients: Collection[str]) -> ProblemRow:
    head, _, rest = line.partition(":")
    ours = head in clients
    return {
        "workspace": head if ours else None,
        "kind": kind.replace("_", " "),
        "what": visible(rest.strip() if ours else line),
    }
