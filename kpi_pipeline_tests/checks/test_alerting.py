"""Whether alerts go out, by the tables that the alerts leave."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from kpi_pipeline.checks.alerting import AlertingKind, AlertingProblem, alerting_problems
from kpi_pipeline.db.alert_evaluations import last_evaluation, store_evaluation
from kpi_pipeline.db.alerts import FailingReceiver, store_failing
from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline_tests.checks.support import TODAY, local

NOW = local(TODAY, 15)


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


def found(engine: Engine, now: datetime = NOW) -> list[AlertingProblem]:
    with engine.connect() as connection:
        return alerting_problems(connection, now)


def evaluated(engine: Engine, at: datetime) -> None:
    with engine.begin() as connection:
        store_evaluation(connection, at)


def failed(engine: Engine, name: str, since: datetime) -> None:
    with engine.begin() as connection:
        store_failing(connection, FailingReceiver(name, 7, since, NOW))


def test_a_new_database_expects_its_first_evaluation_within_ten_minutes(engine: Engine) -> None:
    with engine.connect() as connection:
        created = last_evaluation(connection)
    assert created is not None
    assert created <= utc_now()
    assert found(engine, created + timedelta(minutes=10)) == []
    (problem,) = found(engine, created + timedelta(minutes=10, seconds=1))
    assert problem.kind is AlertingKind.NOT_EVALUATED


def test_alerts_that_are_not_evaluated_for_ten_minutes_do_not_go_out(engine: Engine) -> None:
    evaluated(engine, ago(10))
    assert found(engine) == []
    evaluated(engine, ago(130))
    (problem,) = found(engine)
    assert (problem.kind, problem.since, problem.receiver) == ("not_evaluated", ago(130), None)
    assert problem.text.startswith("Alerts have not been evaluated for 2 h 10 min, so nobody")
    assert "alert_sensor" in problem.text


def test_without_its_row_nothing_is_known_which_is_a_problem(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM alert_evaluations"))
    (problem,) = found(engine)
    assert problem.text.startswith("Alerts have not been evaluated, so nobody")
    evaluated(engine, NOW)
    assert found(engine) == []


@pytest.mark.parametrize(("minutes", "problems"), [(10, []), (11, ["json://chat.example"])])
def test_a_receiver_may_refuse_for_ten_minutes_and_each_that_refuses_longer_is_named(
    engine: Engine, minutes: int, problems: list[str]
) -> None:
    evaluated(engine, NOW)
    failed(engine, "Slack", ago(2))
    failed(engine, "json://chat.example", ago(minutes))
    assert [it.receiver for it in found(engine)] == problems
    for it in found(engine):
        assert it.kind is AlertingKind.NOT_ACCEPTED
        assert it.text.startswith("The receiver json://chat.example has accepted no alert for 11")
