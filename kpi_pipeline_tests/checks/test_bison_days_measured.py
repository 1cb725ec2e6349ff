"""The check `bison_days_measured`: which findings it warns of, and what to do about them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from kpi_pipeline.checks.measured import bison_days_measured
from kpi_pipeline.checks.outcome import Outcome, Severity
from kpi_pipeline.db.findings import Finding
from kpi_pipeline.domain.measure import Subject

NOW = datetime(2026, 3, 18, 20, tzinfo=UTC)
CHICAGO = ZoneInfo("America/Chicago")


def finding(*possible: str, subject: Subject = Subject.DAY_ZONE) -> Finding:
    value = possible[0] if len(possible) == 1 else None
    return Finding("main", subject, "acme", NOW, possible, "how sure it is", value)


def checked(*findings: Finding) -> Outcome:
    return bison_days_measured(findings, CHICAGO, NOW)


@pytest.mark.parametrize(
    ("findings", "description"),
    [
        (
            [],
            "All dates are days of America/Chicago. Whether Email Bison's are, was not measured "
            "yet: `kpi bison measure` does.",
        ),
        (
            [finding("America/Chicago")],
            "All dates are days of America/Chicago. Measured: so are those of main.",
        ),
        (
            [finding("UTC", "America/Chicago")],
            "All dates are days of America/Chicago. Undecided: main; `kpi bison measure` says why.",
        ),
        (
            [finding()],
            "All dates are days of America/Chicago. Undecided: main; `kpi bison measure` says why.",
        ),
    ],
)
def test_it_passes_and_says_what_is_known(findings: list[Finding], description: str) -> None:
    outcome = checked(*findings, finding("mail", subject=Subject.LEADS_COUNT_BY))
    assert outcome.passed
    assert outcome.description == description


def test_another_zone_than_that_of_the_dates_is_a_warning_with_the_command() -> None:
    outcome = checked(finding("America/New_York"))
    assert (outcome.passed, outcome.severity) == (False, Severity.WARN)
    assert outcome.problems == [
        {
            "instance": "main",
            "evidence": "how sure it is",
            "problem": "another zone",
            "measured": "America/New_York",
            "in use": "America/Chicago",
        }
    ]
    assert "all dates are days of America/Chicago" in outcome.description
    assert (
        "set KPI_BISON_TIMEZONE=America/New_York, run `kpi recompute --adopt-timezone`"
        in outcome.description
    )


def test_two_zones_neither_of_which_is_that_of_the_dates_are_a_warning_without_one() -> None:
    outcome = checked(finding("UTC", "Europe/London"))
    assert not outcome.passed
    assert "More than one zone is possible (UTC, Europe/London)" in outcome.description
    assert "KPI_BISON_TIMEZONE=" not in outcome.description


@pytest.mark.parametrize(
    ("subject", "value", "before"),
    [
        (Subject.DAY_ZONE, "America/Chicago", "UTC"),
        (Subject.LEADS_COUNT_BY, "reply", "marking"),
        (Subject.QUIET_DAYS, "left out", "listed"),
    ],
)
def test_a_changed_finding_is_a_warning_for_seven_days(
    subject: Subject, value: str, before: str
) -> None:
    changed = replace(finding(value, subject=subject), before=before, changed_at=NOW)
    outcome = checked(changed)
    [problem] = outcome.problems
    assert (problem["problem"], problem["in use"]) == ("changed", f"before 2026-03-18: {before}")
    assert str(problem["measured"]).endswith(f": {value}")
    assert "`kpi backfill`" in outcome.description
    assert checked(replace(changed, changed_at=NOW - timedelta(days=7))).passed


def test_that_an_older_day_was_revised_is_no_change_to_report() -> None:
    older = finding("9", subject=Subject.REVISED_AGE)
    assert checked(replace(older, before="7", changed_at=NOW)).passed
