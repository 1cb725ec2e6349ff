"""The starter queries for BI: each answers its question with the rights of a reader alone."""

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, text

from kpi_pipeline.db.readers import grant_reader
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline_tests import PROJECT_ROOT
from kpi_pipeline_tests.db.stocked import imported, record, stock_facts, stock_metrics

BI = PROJECT_ROOT / "deploy" / "bi"
QUERIES = sorted((BI / "queries").glob("*.sql"))
Rows = Sequence[Mapping[str, Any]]


@pytest.fixture
def reader(administer: Callable[[str], None]) -> str:
    name = f"reader_{uuid.uuid4().hex}"
    administer(f"CREATE ROLE {name}")
    return name


@pytest.fixture
def today() -> date:
    return datetime.now(UTC).date()


@pytest.fixture
def ask(engine: Engine, vault: Vault, reader: str, today: date) -> Callable[[str], Rows]:
    """Runs a query as the reader, over three clients: ahead, behind, and without a row."""
    ahead, behind, _ = imported(
        engine, vault, record(101, "Ahead"), record(102, "Behind"), record(103, "New")
    )
    numbers = {"monthly_kpi_target": 60, "emails_sent_mtd": 900, "emails_sent_today": 100}
    for workspace, so_far, projected in ((ahead, 61, 70), (behind, 12, 30)):
        values = numbers | {"positive_replies_mtd": so_far, "positive_replies_today": 3}
        projection = {"projection_positive_replies_eom": projected}
        stock_metrics(engine, workspace, today, **values, **projection)
    with engine.begin() as connection:
        stock_facts(connection, ahead, date(2026, 2, 2), date(2026, 2, 8))
        connection.execute(text("INSERT INTO day_zone (zone) VALUES ('UTC')"))
        connection.execute(
            text(
                "INSERT INTO sync_log (run_id, workspace, first_date, last_date, status, "
                "api_calls, seconds, finished_at) "
                "VALUES ('run-1', :workspace, :day, :day, 'ok', 4, 2.5, now())"
            ),
            {"workspace": ahead, "day": today},
        )
        grant_reader(connection, reader)

    def rows(name: str) -> Rows:
        with engine.connect() as connection:
            connection.execute(text(f"SET LOCAL ROLE {reader}"))
            connection.execute(text("SET LOCAL transaction_read_only = on"))
            statement = (BI / "queries" / f"{name}.sql").read_text()
            return [dict(it) for it in connection.exec_driver_sql(statement).mappings()]

    return rows


def test_each_query_answers_its_question_to_a_reader(
    ask: Callable[[str], Rows], today: date
) -> None:
    answers = {it.stem: ask(it.stem) for it in QUERIES}

    standing = [(it["client"], it["standing"]) for it in answers.pop("where_each_client_stands")]
    assert standing == [("Behind", "behind"), ("Ahead", "above target"), ("New", "no data")]
    days = [(it["day"], it["positive_replies"]) for it in answers.pop("positive_replies_by_day")]
    assert days == [(today, 3), (today, 3)]
    months = {it["client"]: it for it in answers.pop("months")}
    assert {name: it["positive_replies"] for name, it in months.items()} == {
        "Ahead": 61,
        "Behind": 12,
    }
    assert {it["month"] for it in months.values()} == {today.replace(day=1)}
    (week,) = answers.pop("agency_by_week")
    assert (week["week"], week["emails_sent"], week["reply_rate"]) == (
        date(2026, 2, 2),
        700,
        Decimal("10.00"),
    )
    ages = answers.pop("age_of_the_numbers")
    assert [it["client"] for it in ages] == ["New", "Ahead", "Behind"]
    assert ages[1]["minutes_old"] > timedelta(days=30) / timedelta(minutes=1)
    (sync,) = answers.pop("syncs")
    assert (sync["clients"], sync["failed_clients"], sync["calls"]) == (1, 0, 4)
    assert answers == {}


def test_the_table_of_starter_queries_lists_each_and_no_other() -> None:
    listed = re.findall(r"\| \[`(\w+\.sql)`\]\(queries/\1\) \|", (BI / "README.md").read_text())
    assert sorted(listed) == [it.name for it in QUERIES]
