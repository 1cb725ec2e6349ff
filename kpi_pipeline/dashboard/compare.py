"""`GET /compare?c=acme&c=birch`: two to six clients over one another, for one month."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kpi_pipeline.dashboard import formatting
from kpi_pipeline.dashboard.charts_month import Line, line_chart
from kpi_pipeline.dashboard.client_view import Days, numbers_of
from kpi_pipeline.dashboard.look_back import look_back
from kpi_pipeline.dashboard.site import site
from kpi_pipeline.db.dashboard.client import Number
from kpi_pipeline.db.dashboard.history import read_series
from kpi_pipeline.db.registry.clients import Client, all_clients
from kpi_pipeline.domain.calendar import days_between, days_in_month, first_of_month
from kpi_pipeline.domain.formatting import listed, whose_day

FEWEST, MOST = 2, 6


@dataclass(frozen=True)
class Choice:
    """One value that a parameter may have, and its label."""

    name: str
    label: str


@dataclass(frozen=True)
class Subject:
    """What is compared: the columns of a day, of the month so far, and of its target."""

    label: str
    daily: str
    cumulative: str
    target: str


SUBJECTS = {
    "positive_replies": Subject(
        "Positive replies",
        "positive_replies_today",
        "positive_replies_mtd",
        "monthly_kpi_target",
    ),
    "emails": Subject(
        "Emails sent",
        "emails_sent_today",
        "emails_sent_mtd",
        "monthly_sending_target",
    ),
}
# Each parameter of the form with the values it may have; the first is the default.
CHOICES: Mapping[str, tuple[str, tuple[Choice, ...]]] = {
    "of": ("Numbers", tuple(Choice(name, it.label) for name, it in SUBJECTS.items())),
    "by": ("Lines", (Choice("month", "the month so far"), Choice("day", "each day"))),
    "scale": ("Scale", (Choice("numbers", "numbers"), Choice("target", "percent of target"))),
}


@dataclass(frozen=True)
class Compared:
    """One client of the comparison; `style` is the class of its line."""

    client: Client
    style: str
    numbers: Mapping[str, Number]
    has_row: bool


@dataclass(frozen=True)
class Comparison:
    """What the page shows. Without a chart, `sentence` says why there is none.

    `without_target` are clients of which a chart in percent of target has no line.
    """

    clients: Sequence[Client]
    picked: frozenset[str]
    chosen: Mapping[str, str]
    subject: Subject
    compared: Sequence[Compared]
    sentence: str
    chart: Markup | None
    without_target: Sequence[str]


def compare_page(request: Request) -> Response:
    """The form, and the comparison of the clients that it names.

    Raises:
        HTTPException: 400 with a sentence, for a value that a parameter can't have.
    """
    of = site(request)
    look = look_back(request, "/compare", of.today())
    names = list(dict.fromkeys(it for it in request.query_params.getlist("c") if it))
    chosen = {name: _chosen(request, name) for name in CHOICES}
    with of.engine.connect() as connection:
        clients = all_clients(connection)
        status, sentence = _problem(names, {it.workspace for it in clients})
        first = first_of_month(look.day)
        series = {} if sentence else read_series(connection, names, first, look.day)
    page = compare(clients, names, chosen, series, look.day, sentence)
    return of.render(
        request,
        "compare.html",
        status,
        page=page,
        look=look,
        choices=CHOICES,
        fewest=FEWEST,
        whose_day=whose_day(of.day_zone, of.timezone),
    )


def compare(
    clients: Sequence[Client],
    names: Sequence[str],
    chosen: Mapping[str, str],
    series: Mapping[str, Days],
    day: date,
    sentence: str,
) -> Comparison:
    """The comparison of the clients `names`; `series` has their rows of the month until `day`."""
    by_workspace = {it.workspace: it for it in clients}
    subject = SUBJECTS[chosen["of"]]
    compared = [
        Compared(
            by_workspace[name],
            f"series s{number}",
            numbers_of(series[name].get(day)),
            day in series[name],
        )
        for number, name in enumerate(names if series else (), start=1)
    ]
    targets = {it.client.workspace: it.numbers[subject.target] for it in compared}
    in_percent = chosen["scale"] == "target"
    without = [it.client.label for it in compared if not targets[it.client.workspace]]
    lines = _beside_their_ends(
        [
            _line(it, series[it.client.workspace], day, chosen, subject)
            for it in compared
            if not in_percent or targets[it.client.workspace]
        ]
    )
    return Comparison(
        clients=[it for it in clients if it.active or it.workspace in names],
        picked=frozenset(names),
        chosen=chosen,
        subject=subject,
        compared=compared,
        sentence=sentence,
        chart=_chart(lines, day, chosen, subject) if lines else None,
        without_target=without if in_percent else [],
    )


def _problem(names: Sequence[str], known: set[str]) -> tuple[int, str]:
    """The status of the answer, and why there is no comparison: nothing if there is one."""
    if unknown := [it[:60] for it in names if it not in known]:
        return 404, f"There is no client {listed(unknown)}."
    if len(names) > MOST:
        return 400, f"{len(names)} clients are too many for one chart: choose at most {MOST}."
    if len(names) < FEWEST:
        return 200, "Choose two to six clients, and they are shown over one another."
    return 200, ""


def _chosen(request: Request, name: str) -> str:
    values = [it.name for it in CHOICES[name][1]]
    asked = request.query_params.get(name) or values[0]
    if asked not in values:
        raise HTTPException(400, f"There is no {name}={asked[:60]}. Use one of: {listed(values)}.")
    return asked


def _line(
    compared: Compared, days: Days, day: date, chosen: Mapping[str, str], subject: Subject
) -> Line:
    is_daily = chosen["by"] == "day"
    column = subject.daily if is_daily else subject.cumulative
    values = [
        (it.day, numbers_of(days.get(it))[column]) for it in days_between(first_of_month(day), day)
    ]
    points: list[tuple[int, float | None]] = [
        (number, None if value is None else float(value)) for number, value in values
    ]
    if not is_daily and points[0][1] is not None:
        points.insert(0, (0, 0))
    target = compared.numbers[subject.target]
    if chosen["scale"] == "target" and target:
        points = [
            (number, None if value is None else value / float(target) * 100)
            for number, value in points
        ]
    return Line(compared.style, compared.client.label, points)


def _beside_their_ends(lines: Sequence[Line]) -> list[Line]:
    """The lines, of which those that end before others have their labels within the chart."""
    ends = [max((day for day, value in it.points if value is not None), default=0) for it in lines]
    return [replace(it, within=end < max(ends)) for it, end in zip(lines, ends, strict=True)]


def _chart(lines: Sequence[Line], day: date, chosen: Mapping[str, str], subject: Subject) -> Markup:
    unit = " in percent of the target" if chosen["scale"] == "target" else ""
    by = "on each day" if chosen["by"] == "day" else "cumulative"
    summary = (
        f"{subject.label} of {formatting.month(day)}, {by}{unit}, of "
        f"{listed([it.label for it in lines])}. The table has the numbers of the last day."
    )
    return line_chart(lines, days_in_month(day), summary, wide=860)


ROUTES = [Route("/compare", compare_page)]
