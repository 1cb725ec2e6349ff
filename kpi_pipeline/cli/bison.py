"""`kpi bison`: what the pipeline finds out about an Email Bison instance."""

import typer
from rich.markup import escape

from kpi_pipeline.checks.measured import contradicts, how_to_adopt
from kpi_pipeline.cli.common import Workspaces, exit_unless, opened_app, out, print_warning
from kpi_pipeline.db.findings import Finding
from kpi_pipeline.domain.formatting import counted
from kpi_pipeline.domain.measure import Subject
from kpi_pipeline.sync.measure import Measured, adopt_if_empty, measure_bison

commands = typer.Typer(
    help="What the pipeline finds out about an Email Bison instance.", no_args_is_help=True
)

_QUESTIONS = {
    Subject.DAY_ZONE: "The zone of its days",
    Subject.LEADS_COUNT_BY: "The day of a positive reply is that of its",
    Subject.QUIET_DAYS: "Days without activity are",
    Subject.REVISED_AGE: "Days are revised until an age of at least",
}


@commands.callback()
def _group() -> None:
    """What the pipeline finds out about an Email Bison instance."""


@commands.command()
def measure(workspace: Workspaces = None) -> None:
    """Find out how each instance counts: recorded events of ten days against the daily series.

    Which time zone bounds its days, whether the day of its marking, its reply or its mail counts a
    lead, whether days without activity are listed, and how old a day still is revised. One client
    of each instance is read, the busiest unless one is named. The findings are stored; what can't
    be decided is said. In an installation without data and KPI_BISON_TIMEZONE, the zone is adopted.
    """
    with opened_app() as app:
        results = measure_bison(app, workspace or [])
        adopted = adopt_if_empty(app)
    for result in results:
        _print(result)
    if adopted is not None:
        out.print(
            f"All dates will be days of {adopted.key}: nothing is stored yet, and "
            "KPI_BISON_TIMEZONE is unset. Set it where Dagster or a gateway is started without "
            "`kpi up`, and start again what runs.",
            soft_wrap=True,
        )
    zone = adopted or app.day_zone
    for finding in (it for result in results for it in result.findings):
        if contradicts(finding, zone):
            print_warning(
                f"All dates are days of {zone.key}, and those of {finding.instance} are not: "
                f"{', '.join(finding.possible)}. {how_to_adopt(', '.join(finding.possible))}"
            )
    exit_unless(all(result.problem is None for result in results))


def _print(result: Measured) -> None:
    if result.problem is not None:
        out.print(f"[red]✗[/red] {result.instance}: {escape(result.problem)}", soft_wrap=True)
        return
    days, events = counted(result.days, "day"), counted(result.events, "event")
    out.print(f"{result.instance}: {days} and {events} of {result.workspace}", soft_wrap=True)
    for finding in sorted(result.findings, key=lambda it: list(Subject).index(it.subject)):
        answer, evidence = escape(_answer(finding)), escape(finding.evidence)
        out.print(f"  {_QUESTIONS[finding.subject]}: {answer} ({evidence})", soft_wrap=True)
    for note in result.notes:
        out.print(f"  {escape(note)}", soft_wrap=True)


def _answer(finding: Finding) -> str:
    """The answer of this comparison; or what is possible, and what was decided before."""
    if finding.subject is Subject.REVISED_AGE:
        return "not known" if finding.value is None else counted(int(finding.value), "day")
    if len(finding.possible) == 1:
        return finding.possible[0]
    text = "undecided, none fits"
    if finding.possible:
        text = f"undecided, {' or '.join(finding.possible)}"
    return text if finding.value is None else f"{text}; before: {finding.value}"
