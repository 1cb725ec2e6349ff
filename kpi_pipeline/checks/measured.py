"""The check `bison_days_measured`: the settings agree with what was measured of Email Bison."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from kpi_pipeline.checks.outcome import Check, Outcome, ProblemRow, Severity, outcome
from kpi_pipeline.db.findings import Finding
from kpi_pipeline.domain.calendar import business_date
from kpi_pipeline.domain.formatting import listed
from kpi_pipeline.domain.measure import Subject

# So long a change is reported.
_NEWS = timedelta(days=7)
_WORDS = {
    Subject.DAY_ZONE: "the zone of the days",
    Subject.LEADS_COUNT_BY: "the moment whose day counts a positive reply",
    Subject.QUIET_DAYS: "days without activity",
}


def bison_days_measured(findings: Sequence[Finding], day_zone: ZoneInfo, now: datetime) -> Outcome:
    """The zone of all dates may be that of Email Bison's days, and no finding has changed."""
    problems = [row for it in findings for row in _problems(it, day_zone, now)]
    wrong = {str(it["measured"]) for it in problems if it["problem"] == "another zone"}
    what_to_do = [how_to_adopt(zone) for zone in sorted(wrong)]
    if any(it["problem"] == "changed" for it in problems):
        what_to_do.append(
            "Email Bison counts in another way than before: compare the days since then with its "
            "own page, and fetch them again with `kpi backfill`. This is reported for seven days."
        )
    instances = list(dict.fromkeys(str(it["instance"]) for it in problems))
    return outcome(
        Check.BISON_DAYS_MEASURED,
        problems,
        if_passed=_if_passed(findings, day_zone),
        if_failed=f"What was measured of {listed(instances)} does not fit: "
        f"all dates are days of {day_zone.key}. {' '.join(what_to_do)}",
        severity=Severity.WARN,
    )


def how_to_adopt(zones: str) -> str:
    """What to do where the measured zone is another one than that of all dates."""
    if "," in zones:
        return (
            f"More than one zone is possible ({zones}): `kpi bison measure -w CLIENT` measures "
            "with another client."
        )
    return (
        f"If Email Bison's own page confirms it: stop `kpi up`, gateways and runs, set "
        f"KPI_BISON_TIMEZONE={zones}, run `kpi recompute --adopt-timezone`, and start again."
    )


def contradicts(finding: Finding, day_zone: ZoneInfo) -> bool:
    """Whether the zone of the dates is none of those that may bound Email Bison's days."""
    return (
        finding.subject is Subject.DAY_ZONE
        and bool(finding.possible)
        and day_zone.key not in finding.possible
    )


def _problems(finding: Finding, day_zone: ZoneInfo, now: datetime) -> Iterator[ProblemRow]:
    row = {"instance": finding.instance, "evidence": finding.evidence}
    if contradicts(finding, day_zone):
        yield {
            **row,
            "problem": "another zone",
            "measured": ", ".join(finding.possible),
            "in use": day_zone.key,
        }
    changed_at = finding.changed_at
    if finding.subject in _WORDS and changed_at is not None and changed_at > now - _NEWS:
        yield {
            **row,
            "problem": "changed",
            "measured": f"{_WORDS[finding.subject]}: {finding.value}",
            "in use": f"before {business_date(changed_at, day_zone)}: {finding.before}",
        }


def _if_passed(findings: Sequence[Finding], day_zone: ZoneInfo) -> str:
    zones = [it for it in findings if it.subject is Subject.DAY_ZONE]
    if not zones:
        return (
            f"All dates are days of {day_zone.key}. Whether Email Bison's are, was not measured "
            "yet: `kpi bison measure` does."
        )
    decided = [it.instance for it in zones if len(it.possible) == 1]
    undecided = [it.instance for it in zones if len(it.possible) != 1]
    texts = [f"All dates are days of {day_zone.key}."]
    if decided:
        texts.append(f"Measured: so are those of {listed(decided)}.")
    if undecided:
        texts.append(f"Undecided: {listed(undecided)}; `kpi bison measure` says why.")
    return " ".join(texts)
