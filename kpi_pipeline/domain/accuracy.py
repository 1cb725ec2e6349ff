"""How right projections were: those of the 10th and the 20th against what the month brought."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import date

from kpi_pipeline.domain.calendar import days_in_month, first_of_month, first_of_previous_month

# The days of the month whose projections are judged.
JUDGED_DAYS = (10, 20)


@dataclass(frozen=True)
class JudgedRow:
    """The projections of a client's row, and its sums up to the metric date."""

    workspace: str
    metric_date: date
    projected_replies: int | None
    replies: int | None
    projected_emails: int | None
    emails: int | None


@dataclass(frozen=True)
class Judgement:
    """Two projections of a month's sum, and the sum on the month's last day."""

    projected_10th: int | None
    projected_20th: int | None
    actual: int | None

    @property
    def error_10th(self) -> float | None:
        """By how many percent of the sum the projection of the 10th was too high."""
        return _error(self.projected_10th, self.actual)

    @property
    def error_20th(self) -> float | None:
        """By how many percent of the sum the projection of the 20th was too high."""
        return _error(self.projected_20th, self.actual)


@dataclass(frozen=True)
class Accuracy:
    """The projections of one client's month, or of all clients of a month.

    `month` is its first day. For all clients, `workspace` is None, and the numbers add up the
    `clients` of which all six are known: the sums compare like with like.
    """

    month: date
    workspace: str | None
    clients: int
    positive_replies: Judgement
    emails: Judgement


def judged_dates(today: date, months: int) -> list[date]:
    """The 10th, the 20th and the last day of each of the months before that of `today`."""
    firsts = judged_months(today, months)
    return [
        first.replace(day=day) for first in firsts for day in (*JUDGED_DAYS, days_in_month(first))
    ]


def judged_months(today: date, months: int) -> list[date]:
    """The first days of the `months` months before that of `today`, in the order of time."""
    firsts = [first_of_previous_month(today)]
    while len(firsts) < months:
        firsts.insert(0, first_of_previous_month(firsts[0]))
    return firsts


def projection_accuracy(
    rows: Iterable[JudgedRow], expected: Iterable[tuple[date, str]] = ()
) -> list[Accuracy]:
    """Compare what the rows of the 10th and the 20th projected with what the month brought.

    Rows of other days than the 10th, the 20th and the last of a month are ignored. `expected` are
    months (their first days) and workspaces that get an entry even without such a row.

    There is an entry for each month and client, ordered by both, and after those of a month one for
    all its clients. An error is (projected − actual) ÷ actual in percent; it is None where one of
    the two is missing, or nothing was actually counted.
    """
    found: dict[tuple[date, str], dict[int, JudgedRow]] = {key: {} for key in expected}
    for row in rows:
        day, last = row.metric_date.day, days_in_month(row.metric_date)
        if day in JUDGED_DAYS or day == last:
            key = (first_of_month(row.metric_date), row.workspace)
            # 0 is the key of the last day, whatever its number.
            found.setdefault(key, {})[day if day in JUDGED_DAYS else 0] = row
    entries: list[Accuracy] = []
    by_month: dict[date, list[Accuracy]] = {}
    for (month, workspace), days in sorted(found.items()):
        by_month.setdefault(month, []).append(_of_client(month, workspace, days))
    for month, of_clients in by_month.items():
        entries += [*of_clients, _of_all(month, of_clients)]
    return entries


def _of_client(month: date, workspace: str, days: Mapping[int, JudgedRow]) -> Accuracy:
    nothing = JudgedRow(workspace, month, None, None, None, None)
    tenth, twentieth, last = (days.get(it, nothing) for it in (*JUDGED_DAYS, 0))
    replies = Judgement(tenth.projected_replies, twentieth.projected_replies, last.replies)
    emails = Judgement(tenth.projected_emails, twentieth.projected_emails, last.emails)
    return Accuracy(month, workspace, 1, replies, emails)


def _of_all(month: date, of_clients: Sequence[Accuracy]) -> Accuracy:
    complete = [
        (*astuple(it.positive_replies), *astuple(it.emails))
        for it in of_clients
        if None not in (*astuple(it.positive_replies), *astuple(it.emails))
    ]
    if not complete:
        nothing = Judgement(None, None, None)
        return Accuracy(month, None, 0, nothing, nothing)
    sums = [sum(column) for column in zip(*complete, strict=True)]
    return Accuracy(month, None, len(complete), Judgement(*sums[:3]), Judgement(*sums[3:]))


def _error(projected: int | None, actual: int | None) -> float | None:
    """(projected − actual) ÷ actual in percent, rounded to two places."""
    if projected is None or actual is None or actual <= 0:
        return None
    return round((projected - actual) / actual * 100, 2)
