"""`kpi bison measure`, against a local Email Bison over HTTP; its clock is the real one."""

import re

import pytest
from sqlalchemy import Engine

from kpi_pipeline.db.findings import read_findings
from kpi_pipeline.db.registry.clients import all_clients
from kpi_pipeline.db.tables import day_zone
from kpi_pipeline.domain.measure import Subject
from kpi_pipeline_tests.bison_sandbox.running import Bison
from kpi_pipeline_tests.cli.running import Kpi, calm_zone, rows_of

pytestmark = pytest.mark.usefixtures("imported")

ELSEWHERE = "Asia/Kolkata"


@pytest.fixture
def ordinary(live_bison: Bison, engine: Engine) -> str:
    """A client with a sixth of the events of the busiest one, which is measured by default."""
    rows = sorted(live_bison.with_key(), key=lambda it: int(it["monthly_sending_target"]))
    number = int(rows[18]["bison_workspace_id"])
    with engine.connect() as connection:
        [found] = [it for it in all_clients(connection) if it.bison_workspace_id == number]
    return found.workspace


def test_it_says_what_it_found_and_how_sure_it_is_and_stores_it(
    kpi: Kpi, live_bison: Bison, engine: Engine
) -> None:
    live_bison.variants(leads_count_by="reply")

    result = kpi("bison", "measure")

    lines = result.answer().splitlines()
    # At some hours, the zones have different dates.
    [days] = re.findall(r"^main: ([89]) days and [\d,]+ events of \S+$", lines[0])
    zone, agree = calm_zone().key, f"{days} of {days} days agree; "
    assert lines[1].startswith(f"  The zone of its days: {zone} ({zone}: {agree}")
    assert lines[2].startswith(
        f"  The day of a positive reply is that of its: reply (reply: {agree}"
    )
    assert lines[3].startswith("  Days without activity are: ")
    assert lines[4].startswith("  Days are revised until an age of at least: ")
    assert result.err == ""
    with engine.connect() as connection:
        stored = {it.subject: it.value for it in read_findings(connection)}
    assert stored[Subject.DAY_ZONE] == calm_zone().key
    assert stored[Subject.LEADS_COUNT_BY] == "reply"


def test_another_zone_than_the_setting_is_a_warning_and_changes_no_date(
    kpi: Kpi, live_bison: Bison, engine: Engine, ordinary: str
) -> None:
    live_bison.variants(day_zone=ELSEWHERE)

    result = kpi("bison", "measure", "-w", ordinary)

    assert f"The zone of its days: {ELSEWHERE} (" in result.answer()
    warning = " ".join(result.err.split())
    assert f"Warning: All dates are days of {calm_zone().key}" in warning
    assert f"set KPI_BISON_TIMEZONE={ELSEWHERE}, run `kpi recompute --adopt-timezone`" in warning
    assert rows_of(engine, day_zone)["day_zone"][0]["zone"] == calm_zone().key


def test_without_a_setting_and_data_the_measured_zone_is_used_from_then_on(
    kpi: Kpi,
    live_bison: Bison,
    engine: Engine,
    ordinary: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live_bison.variants(day_zone=ELSEWHERE)
    monkeypatch.delenv("KPI_BISON_TIMEZONE")

    first = kpi("bison", "measure", "-w", ordinary)

    assert f"All dates will be days of {ELSEWHERE}: nothing is stored yet" in first.answer()
    assert first.err == ""
    [stored] = rows_of(engine, day_zone)["day_zone"]
    assert (stored["zone"], stored["measured"]) == (ELSEWHERE, True)
    assert f"(Email Bison's day, {ELSEWHERE})" in kpi("metrics").answer()
    assert "All dates will be" not in kpi("bison", "measure", "-w", ordinary).answer()


def test_what_is_undecided_is_said(
    kpi: Kpi, live_bison: Bison, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    live_bison.variants(event_feed="unfiltered")
    monkeypatch.setattr("kpi_pipeline.sync.measure._MOST_ROWS", 300)

    answer = kpi("bison", "measure").answer()

    assert "  The zone of its days: undecided, " in answer
    assert " or UTC or " in answer
    assert (
        "  The day of a positive reply is that of its: undecided, marking or reply or mail ("
        in answer
    )
    assert "Days are revised until an age of at least: not known (" in answer
    assert "Events of the type lead_interested are left out" in answer
    live_bison.variants(event_feed="missing")
    failed = kpi("bison", "measure")
    assert failed.code == 1
    assert "main has no event feed, so nothing can be measured." in failed.out
