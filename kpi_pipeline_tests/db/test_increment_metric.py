"""The counter function of old: its callers go on calling it, and it stores events."""

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.db.vault import Vault
from kpi_pipeline.domain.calendar import business_date
from kpi_pipeline.inbox.replay import match_and_date, replay
from kpi_pipeline_tests.cli.running import calm_zone
from kpi_pipeline_tests.db.stocked import imported, record
from kpi_pipeline_tests.inbox.support import Clients

# What the caller of the function names, and the count that it raises.
METRICS = {
    "positive_replies": "interested",
    "positive_replies_mtd": "interested",
    "positive_replies_today": "interested",
    "positive_replies_current_month": "interested",
    "interested": "interested",
    "emails_sent_mtd": "sent",
    "emails_sent_today": "sent",
    "all_replies_mtd": "replied",
    "bounced_mtd": "bounced",
    "unsubscribed": "unsubscribed",
    " Positive_Replies_MTD ": "interested",
}


@pytest.fixture
def clients(engine: Engine, vault: Vault) -> Clients:
    """Clients whose clock is that of the database, which dates its events by it."""
    records = [record(101, "Harbor Analytics"), record(102, "Quay"), record(103, "Idle Ltd")]
    imported(engine, vault, *records)
    clients = Clients(engine, vault, tz=calm_zone())
    clients.sql("UPDATE clients SET active = false WHERE workspace = 'idle-ltd'")
    clients.at = datetime.now(UTC) + timedelta(seconds=5)
    return clients


def increment(clients: Clients, workspace: object, metric: object, by: object = 1) -> None:
    clients.sql(
        "SELECT increment_metric(:workspace, :metric, :by)",
        **{"workspace": workspace, "metric": metric, "by": by},
    )


def error_of(clients: Clients, *arguments: object) -> str:
    """The error that the caller gets; nothing is stored."""
    with pytest.raises(DBAPIError) as refused:
        increment(clients, *arguments)
    assert clients.events("id") == []
    assert getattr(refused.value.orig, "sqlstate", None) == "22023"
    return str(refused.value.orig).splitlines()[0]


def test_a_client_is_found_by_name_or_key_trimmed_and_in_any_case(clients: Clients) -> None:
    names = ["Harbor Analytics", "harbor-analytics", " HARBOR-ANALYTICS", "  HARBOR analytics "]
    for name in names:
        increment(clients, name, "positive_replies_mtd")
    columns = "workspace", "instance", "bison_workspace_id", "source", "status"
    expected = ("harbor-analytics", "main", 101, "function", "received")
    assert clients.events(*columns) == [expected] * len(names)


def test_each_name_of_a_metric_raises_its_own_count(clients: Clients) -> None:
    for name in METRICS:
        increment(clients, "Quay", name)
    assert clients.events("metric") == list(METRICS.values())


def test_it_stores_an_event_for_each_one_and_touches_no_number(clients: Clients) -> None:
    increment(clients, "Quay", "positive_replies_mtd", 3)
    increment(clients, "Quay", "positive_replies_mtd", 1000)
    assert len(set(clients.events("idempotency_key"))) == 3 + 1000
    assert set(clients.events("business_date", "body")) == {(None, None)}
    assert clients.rows() == {}


def test_its_events_count_on_the_business_date_of_their_arrival(clients: Clients) -> None:
    increment(clients, "Quay", "positive_replies_mtd", 3)
    increment(clients, "Quay", "emails_sent_today")
    assert match_and_date(clients.inbox()) == 4
    [arrived_at, *_] = clients.events("arrived_at")
    day = business_date(arrived_at, clients.tz)
    assert set(clients.events("business_date")) == {day}
    assert replay(clients.inbox()).applied == 4
    row = clients.rows()["quay", day]
    assert (row["positive_replies_today"], row["emails_sent_today"]) == (3, 1)
    assert match_and_date(clients.inbox()) == 0


def test_events_that_were_set_aside_before_they_had_a_day_get_one_and_count(
    clients: Clients,
) -> None:
    increment(clients, "Quay", "positive_replies_mtd")
    clients.sql("UPDATE webhook_events SET status = 'set_aside', tries = 5")
    assert replay(clients.inbox()).applied == 1
    assert clients.events("status") == ["applied"]


def test_an_unknown_or_inactive_client_is_refused_with_a_sentence(clients: Clients) -> None:
    for name in ("Nobody", "", None, "Idle Ltd", "idle-ltd"):
        message = error_of(clients, name, "positive_replies_mtd")
        assert message.startswith(f"There is no active client {'NULL' if name is None else name}")
        assert "`kpi clients list`" in message


def test_a_name_that_two_clients_have_is_refused_and_their_keys_are_not(clients: Clients) -> None:
    imported(clients.engine, clients.vault, record(104, "quay", instance="emea"))
    assert error_of(clients, "QUAY ", "bounced").startswith(
        "Several active clients are called QUAY"
    )


def test_a_key_is_understood_though_another_client_is_called_so(clients: Clients) -> None:
    imported(clients.engine, clients.vault, record(104, "Quay", instance="emea"))
    [key] = clients.sql("SELECT workspace FROM clients WHERE instance = 'emea'")
    increment(clients, key[0], "bounced")
    increment(clients, "quay", "bounced")
    assert clients.events("workspace") == [key[0], "quay"]


def test_an_unknown_metric_is_refused_with_those_there_are(clients: Clients) -> None:
    for name in ("opens", "", None, "positive_replies_last_7_days", "mtd"):
        message = error_of(clients, "Quay", name)
        assert message.startswith(f"There is no metric {'NULL' if name is None else name}: use ")


def test_a_number_that_is_no_increment_is_refused(clients: Clients) -> None:
    for by in (None, 0, -1, 1001):
        message = error_of(clients, "Quay", "positive_replies_mtd", by)
        assert message == f"A metric is raised by 1 to 1000, not by {'NULL' if by is None else by}."


@pytest.fixture
def stranger(engine: Engine, administer: Callable[[str], None]) -> Iterator[str]:
    """A role that may read the tables, and was given nothing else."""
    name = f"stranger_{uuid.uuid4().hex}"
    administer(f"CREATE ROLE {name}")
    yield name
    with engine.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {name}"))
    administer(f"DROP ROLE {name}")


def test_a_role_without_the_right_may_not_call_it(clients: Clients, stranger: str) -> None:
    def as_stranger() -> Any:
        with clients.engine.begin() as connection:
            connection.execute(text(f"SET LOCAL ROLE {stranger}"))
            connection.execute(text("SELECT increment_metric('Quay', 'bounced', 1)"))

    tables = "clients, webhook_events"
    clients.sql(f"GRANT SELECT, INSERT ON {tables} TO {stranger}")
    with pytest.raises(DBAPIError, match="permission denied for function increment_metric"):
        as_stranger()
    assert clients.events("id") == []
    clients.sql(f"GRANT EXECUTE ON FUNCTION increment_metric TO {stranger}")
    as_stranger()
    assert clients.events("workspace") == ["quay"]
