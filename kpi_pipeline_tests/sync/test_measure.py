"""What `measure_bison` finds in a sandbox of each variant, over HTTP, and what it stores."""

from collections.abc import Mapping

import pytest

from kpi_pipeline.db.findings import Finding, read_findings
from kpi_pipeline.domain.measure import Subject
from kpi_pipeline.sync.measure import Measured, measure_bison
from kpi_pipeline_tests.agency import Agency

ZONES = ("UTC", "America/New_York", "America/Los_Angeles")


def stored(agency: Agency) -> Mapping[Subject, Finding]:
    with agency.app.engine.connect() as connection:
        return {it.subject: it for it in read_findings(connection)}


def measured(agency: Agency, *workspaces: str) -> Measured:
    [found] = measure_bison(agency.app, workspaces)
    assert found.problem is None
    assert found.findings == list(stored(agency).values())
    return found


@pytest.mark.parametrize("by", ["marking", "reply", "mail"])
@pytest.mark.parametrize("zone", ZONES)
def test_it_finds_the_zone_and_the_moment_of_each_variant_from_ten_days(
    agency: Agency, zone: str, by: str
) -> None:
    agency.bison.variants(day_zone=zone, leads_count_by=by)

    found = measured(agency)

    assert found.days >= 8
    findings = stored(agency)
    assert findings[Subject.DAY_ZONE].value == zone, findings
    assert findings[Subject.LEADS_COUNT_BY].value == by, findings
    days = found.days
    assert findings[Subject.DAY_ZONE].evidence.startswith(f"{zone}: {days} of {days} days agree; ")
    # Late replies and bounces of the sandbox are recorded until a day is a week old.
    assert findings[Subject.REVISED_AGE].value is not None
