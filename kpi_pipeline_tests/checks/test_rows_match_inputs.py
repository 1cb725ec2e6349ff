"""The check `rows_match_inputs`: red for each kind of damage, and green after `kpi recompute`."""

from collections.abc import Callable
from datetime import date, timedelta

import pytest
from sqlalchemy import URL, DateTime, Engine, Table, Text, func, literal, text, update

from kpi_pipeline.checks.outcome import MAX_PROBLEMS, Outcome, Severity
from kpi_pipeline.db.registry.vault import new_secret_key
from kpi_pipeline.db.tables import client_metrics, kpi_projections
from kpi_pipeline.domain.columns import FACT_COUNTS
from kpi_pipeline_tests.checks import rows
from kpi_pipeline_tests.cli.running import Kpi, address

Row = tuple[str, str, str, str, str | None, str | None]


@pytest.fixture(autouse=True)
def _agency(engine: Engine) -> None:
    with engine.begin() as connection:
        rows.agency(connection)


@pytest.fixture
def recompute(
    database: URL, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """`kpi recompute` with these options; what it printed."""
    monkeypatch.setenv("KPI_DATABASE_URL", address(database))
    monkeypatch.setenv("KPI_SECRET_KEY", new_secret_key())
    monkeypatch.setenv("KPI_TIMEZONE", "America/Chicago")
    return lambda *words: Kpi(capsys)("recompute", *words).answer()


def checked(engine: Engine) -> Outcome:
    with engine.connect() as connection:
        return rows.checked(connection)


def damage(engine: Engine, statement: str) -> int:
    with engine.begin() as connection:
        return connection.execute(text(statement)).rowcount


def problems(found: Outcome) -> list[Row]:
    names = ("workspace", "date", "table", "column", "stored", "expected")
    return [tuple(row[name] for name in names) for row in found.problems]  # type: ignore[misc]


METRICS, PROJECTIONS = "client_metrics", "kpi_projections"
ROW = "WHERE workspace = 'acme' AND metric_date = '2026-03-12'"
DAMAGES = {
    "a count": (
        f"UPDATE client_metrics SET emails_sent_mtd = emails_sent_mtd + 100 {ROW}",
        ("acme", "2026-03-12", METRICS, "emails_sent_mtd", "1378", "1278"),
    ),
    "a window that became unknown": (
        f"UPDATE client_metrics SET positive_replies_last_14_days = NULL {ROW}",
        ("acme", "2026-03-12", METRICS, "positive_replies_last_14_days", None, "36"),
    ),
    "a projection, in the table that feeds the other": (
        f"UPDATE kpi_projections SET projection_emails_eom = 1 {ROW}",
        ("acme", "2026-03-12", PROJECTIONS, "projection_emails_eom", "1", "3302"),
    ),
    "a percentage": (
        f"UPDATE client_metrics SET reply_rate_mtd = reply_rate_mtd + 0.01 {ROW}",
        ("acme", "2026-03-12", METRICS, "reply_rate_mtd", "7.52", "7.51"),
    ),
    "as_of": (
        f"UPDATE client_metrics SET as_of = as_of + interval '1 microsecond' {ROW}",
        (
            *("acme", "2026-03-12", METRICS, "as_of"),
            *("2026-03-13T05:00:00.000001+00:00", "2026-03-13T05:00:00+00:00"),
        ),
    ),
    "a label in a row": (
        f"UPDATE client_metrics SET display_name = 'Somebody' {ROW}",
        ("acme", "2026-03-12", METRICS, "display_name", "Somebody", "The acmes"),
    ),
    "a client's name": (
        "UPDATE clients SET name = 'Acme Two' WHERE workspace = 'acme'",
        ("acme", "2026-02-01", METRICS, "workspace_name", "Acme", "Acme Two"),
    ),
    "a target": (
        "UPDATE client_targets SET monthly_kpi_target = 81 "
        "WHERE workspace = 'acme' AND holds_from = '2026-03-01'",
        ("acme", "2026-03-01", METRICS, "monthly_kpi_target", "80", "81"),
    ),
    "a target that was deleted": (
        "DELETE FROM client_targets WHERE workspace = 'birch'",
        ("birch", "2026-02-01", METRICS, "monthly_sending_target", "4000", None),
    ),
    "a sending plan": (
        "UPDATE sending_plans SET emails_scheduled_tomorrow = 141",
        ("acme", "2026-03-18", METRICS, "emails_scheduled_tomorrow", "140", "141"),
    ),
    "a fact that was revised behind our back": (
        "UPDATE raw_bison_stats SET sent = sent + 100 "
        "WHERE workspace = 'acme' AND date = '2026-02-25'",
        ("acme", "2026-02-25", METRICS, "emails_sent_mtd", "2825", "2925"),
    ),
    "a fact that was deleted": (
        "DELETE FROM raw_bison_stats WHERE workspace = 'acme' AND date = '2026-01-31'",
        ("acme", "2026-02-01", METRICS, "positive_replies_last_month", "79", None),
    ),
    "an event that was deleted": (
        "DELETE FROM webhook_events WHERE business_date = '2026-03-18'",
        ("acme", "2026-03-18", METRICS, "positive_replies_today", "4", "3"),
    ),
    "an event that was moved to another day": (
        "UPDATE webhook_events SET business_date = '2026-03-11', "
        "happened_at = happened_at + interval '1 day' "
        "WHERE business_date = '2026-03-10' AND happened_at > '2026-03-11 05:00:00+00'",
        ("acme", "2026-03-10", METRICS, "positive_replies_today", "4", "3"),
    ),
    "an event that waits again": (
        "UPDATE webhook_events SET status = 'received' WHERE business_date = '2026-03-18'",
        ("acme", "2026-03-18", METRICS, "positive_replies_today", "4", "3"),
    ),
    "a row of kpi_projections that was deleted": (
        f"DELETE FROM kpi_projections {ROW}",
        ("acme", "2026-03-12", PROJECTIONS, "(the row)", "missing", "a row"),
    ),
}


def test_it_passes_where_every_row_equals_its_inputs(engine: Engine) -> None:
    found = checked(engine)
    assert found.passed
    assert found.numbers == {"rows": 92, "differing_rows": 0, "differing_values": 0}
    assert found.description == (
        "92 rows of the last 62 days: every value equals what facts, events, targets, labels and "
        "sending plans give."
    )


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_named_with_both_values_until_the_rows_are_recomputed(
    engine: Engine, recompute: Callable[..., str], kind: str
) -> None:
    statement, expected = DAMAGES[kind]
    assert damage(engine, statement) >= 1
    found = checked(engine)
    assert found.severity is Severity.ERROR
    assert expected in problems(found)
    assert found.clients == [expected[0]]
    assert f" -w {expected[0]}` computes the rows again" in found.description
    # The command as the description gives it.
    command = found.description.split("`kpi recompute ")[1].split("`")[0]
    assert "changed" in recompute(*command.split())
    again = checked(engine)
    assert again.passed, again.problems


@pytest.mark.parametrize("table", [client_metrics, kpi_projections], ids=lambda it: it.name)
def test_every_column_is_compared_but_those_that_say_when_and_by_what_a_row_was_written(
    engine: Engine, table: Table
) -> None:
    keys = {"workspace", "metric_date", "metric_type"}
    columns = [it for it in table.columns if it.name not in {*keys, "source", "updated_at"}]
    changed = {
        it.name: literal("another name")
        if isinstance(it.type, Text)
        else it + timedelta(seconds=1)
        if isinstance(it.type, DateTime)
        else func.coalesce(it, 0) + 1
        for it in columns
    }
    day = date(2026, 3, 12)
    statement = update(table).where(table.c.workspace == "acme", table.c.metric_date == day)
    with engine.begin() as connection:
        connection.execute(statement.values(changed))
    found = problems(checked(engine))
    assert {row[:3] for row in found} == {("acme", "2026-03-12", table.name)}
    assert sorted(row[3] for row in found) == sorted(it.name for it in columns)


def test_a_value_that_both_tables_have_is_shown_once(engine: Engine) -> None:
    for table in (METRICS, PROJECTIONS):
        damage(engine, f"UPDATE {table} SET bounced_mtd = 7 {ROW}")
    assert problems(checked(engine)) == [
        ("acme", "2026-03-12", METRICS, "bounced_mtd", "7", "12"),
    ]
    damage(engine, f"UPDATE kpi_projections SET bounced_mtd = 8 {ROW}")
    assert problems(checked(engine)) == [
        ("acme", "2026-03-12", METRICS, "bounced_mtd", "7", "12"),
        ("acme", "2026-03-12", PROJECTIONS, "bounced_mtd", "8", "12"),
    ]


def test_of_many_differences_the_oldest_are_shown_and_all_are_counted(engine: Engine) -> None:
    damage(engine, "UPDATE client_metrics SET emails_sent_today = -1, bounced_mtd = -1")
    found = checked(engine)
    assert len(found.problems) == MAX_PROBLEMS
    assert found.more == 2 * 92 - MAX_PROBLEMS
    assert found.problems[0]["date"] == "2026-02-01"
    assert found.clients == ["acme", "birch"]
    assert found.description.startswith(
        "Not what facts, events, targets, labels and sending plans give: 184 values in 92 rows of "
        "2026-02-01 to 2026-03-18 (acme, birch)."
    )
    assert "--from 2026-02-01 --to 2026-03-18 -w acme -w birch`" in found.description


def test_rows_of_inactive_clients_and_rows_older_than_62_days_are_not_judged(
    engine: Engine,
) -> None:
    damage(engine, "UPDATE client_metrics SET bounced_mtd = -1 WHERE workspace = 'birch'")
    damage(engine, "UPDATE clients SET active = false WHERE workspace = 'birch'")
    with engine.begin() as connection:
        for day in (date(2026, 1, 15), date(2026, 1, 16)):
            rows.add_rows(connection, "acme", [day])
    damage(engine, "UPDATE client_metrics SET bounced_mtd = -1 WHERE metric_date = '2026-01-15'")
    assert checked(engine).passed
    damage(engine, "UPDATE client_metrics SET bounced_mtd = -1 WHERE metric_date = '2026-01-16'")
    assert [row[:2] for row in problems(checked(engine))] == [("acme", "2026-01-16")]


def test_a_row_of_events_alone_counts_them_in_itself_and_in_no_other(engine: Engine) -> None:
    tomorrow = rows.TODAY + rows.ONE_DAY
    with engine.begin() as connection:
        rows.add_event(connection, "acme", tomorrow, rows.NOW + rows.ONE_DAY)
        rows.add_rows(connection, "acme", [], of_events=[tomorrow])
        found = rows.checked(connection, tomorrow)
        assert found.passed, found.problems
        numbers = (
            "SELECT positive_replies_today, emails_sent_mtd, to_char(as_of, 'HH24:MI') "
            "FROM client_metrics WHERE workspace = 'acme' AND metric_date = '2026-03-19'"
        )
        assert connection.execute(text(numbers)).one() == (1, 1971, "05:00")
        # For the day after it, it is unknown: the windows over it are NULL.
        after = tomorrow + rows.ONE_DAY
        rows.add_facts(connection, "acme", {after: dict.fromkeys(FACT_COUNTS, 1)})
        rows.add_rows(connection, "acme", [after])
        assert rows.checked(connection, after).passed
        numbers = numbers.replace("2026-03-19", f"{after}")
        assert connection.execute(text(numbers)).one()[:2] == (1, None)


def test_an_event_that_waits_shows_in_no_row(engine: Engine) -> None:
    with engine.begin() as connection:
        rows.add_event(connection, "acme", rows.TODAY, None, status="received")
    assert checked(engine).passed
