"""`kpi doctor`: everything that must hold, a line each, with what to do where it does not."""

import json
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.markup import escape

from kpi_pipeline.cli.common import out
from kpi_pipeline.domain.formatting import counted
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.doctor.finding import Finding, Verdict, worst
from kpi_pipeline.services.doctor.run import CHECKS, examine, examine_and_fix

_MARKS = {
    Verdict.OK: "[green]✓[/green]",
    Verdict.NOT_CHECKED: "[dim]–[/dim]",
    Verdict.WARNING: "[yellow]![/yellow]",
    Verdict.PROBLEM: "[bold red]✗[/bold red]",
}
_WIDTH = max(len(it.name) for it in CHECKS)


def run(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CHECK]...", help="The checks to make; without any: all."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs; docs/monitoring.md defines it.")
    ] = False,
    fix: Annotated[
        bool,
        typer.Option(
            "--fix",
            help="Do what is safe: file modes, missing partitions, webhooks; then check again.",
        ),
    ] = False,
    send_alert: Annotated[
        bool, typer.Option("--send-alert", help="Send a test message to each receiver of alerts.")
    ] = False,
    list_checks: Annotated[
        bool, typer.Option("--list", help="List the checks, and what each of them says.")
    ] = False,
) -> None:
    """Check everything that must hold, a line each, with what to do where it does not.

    It asks Email Bison, the database, Dagster and this machine. Email Bison sends a test event,
    which has to come back and counts nothing; otherwise nothing is changed without --fix. A problem
    that follows from another one is not named.

    Exits with code 0 if all is well, 1 if there are only warnings, and 2 if there is a problem.
    """
    chosen = names or []
    if list_checks:
        for it in CHECKS:
            out.print(f"{it.name:<{_WIDTH}}  {escape(it.promise)}", soft_wrap=True)
        return
    if fix:
        if as_json:
            raise KpiError("Use --fix without --json: it prints what was done, in sentences.")
        examine_and_fix(chosen, _print_fixed)
    on_finding = (lambda _: None) if as_json else _print
    found = examine(chosen, send_alert=send_alert, on_finding=on_finding)
    verdict = worst(found)
    if as_json:
        # ASCII: a terminal shows names from outside as text.
        typer.echo(json.dumps(_document(found, verdict), indent=2))
    else:
        out.print(_verdict(found))
    raise typer.Exit(verdict.exit_code)


def _print(finding: Finding) -> None:
    name = f"{finding.check:<{_WIDTH}}"
    out.print(f"{_MARKS[finding.verdict]} {name}  {escape(finding.sentence)}", soft_wrap=True)


def _print_fixed(finding: Finding, done: str) -> None:
    out.print(f"[green]→[/green] {finding.check:<{_WIDTH}}  {escape(done)}", soft_wrap=True)


def _verdict(found: Sequence[Finding]) -> str:
    problems = sum(it.verdict is Verdict.PROBLEM for it in found)
    warnings = sum(it.verdict is Verdict.WARNING for it in found)
    if not problems and not warnings:
        return "[green]All is well.[/green]"
    return f"{counted(problems, 'problem')}, {counted(warnings, 'warning')}."


def _document(found: Sequence[Finding], verdict: Verdict) -> dict[str, object]:
    """The document that docs/monitoring.md defines; names in it never change their meaning."""
    return {
        "verdict": verdict,
        "exit_code": verdict.exit_code,
        "findings": [
            {
                "check": it.check,
                "verdict": it.verdict,
                "text": it.text,
                "remedy": it.remedy or None,
                "clients": list(it.clients),
                "fixable": it.fix is not None,
            }
            for it in found
        ],
    }
