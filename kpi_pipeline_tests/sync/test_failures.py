"""One client's failure changes none of its rows, and all other clients are synced."""

import logging
from collections.abc import Collection
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from kpi_pipeline.db.registry.vault import Vault, new_secret_key
from kpi_pipeline.db.sync_log import read_entries
from kpi_pipeline.db.tables import client_api_keys, client_metrics, sync_log, webhook_events
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.errors import KpiError
from kpi_pipeline.inbox.ingest import inbox_of, ingest
from kpi_pipeline.sync.run import ClientOutcome, run_sync
from kpi_pipeline.sync.scope import PartitionBlock
from kpi_pipeline_tests.agency import (
    SERIES,
    WHO_AM_I,
    Agency,
    Bystander,
    Rows,
    differences,
    errors,
    of_clients,
)
from kpi_pipeline_tests.bison_sandbox.running import TODAY, Stage
from kpi_pipeline_tests.conftest import NOW
from kpi_pipeline_tests.db.stocked import imported, record
from kpi_pipeline_tests.domain.bodies import lead
from kpi_pipeline_tests.inbox.support import FULL_DISK, SHUT_DOWN, TIMED_OUT, fail_first_write

DATES = days_between(TODAY - timedelta(days=1), TODAY)
LATER = NOW + timedelta(minutes=30)


def assert_only_the_healthy_are_new(
    agency: Agency, healthy: Collection[str], failed: Collection[str], before: dict[str, Rows]
) -> None:
    """The failed clients' rows are as before, to the byte; the others' are those of LATER."""
    after = agency.all_rows()
    assert of_clients(after, failed) == of_clients(before, failed)
    fresh = of_clients(after, healthy)["client_metrics"]
    assert {row["as_of"] for row in fresh.values()} == {LATER}
    assert differences(fresh, agency.expected(DATES, list(healthy))) == []


@pytest.mark.long
def test_a_rejected_key_and_a_deleted_workspace_leave_the_other_24_clients_alone(
    agency: Agency,
) -> None:
    agency.synced(DATES)
    before = agency.all_rows()
    assert len(before["client_metrics"]) == 26 * 2
    rejected, gone = agency.keyed[3], agency.keyed[17]
    agency.revoke(rejected)
    agency.delete(gone)
    agency = agency.moved_to(LATER)

    outcomes = agency.sync(DATES, run_id="the bad night")

    failures = errors(outcomes)
    assert failures.keys() == {rejected, gone}
    assert "401" in failures[rejected]
    assert "Give the client a valid api_key" in failures[rejected]
    assert "404" in failures[gone]
    assert "set the client inactive" in failures[gone]
    assert all(error.startswith(f"{slug}: ") for slug, error in failures.items())
    assert not any(outcomes[slug].numbers for slug in failures)
    healthy = [slug for slug in agency.workspaces if slug not in failures]
    assert len(healthy) == 24
    assert_only_the_healthy_are_new(agency, healthy, failures, before)
    with agency.app.engine.connect() as connection:
        entries = {it.workspace: it for it in read_entries(connection, ["the bad night"])}
    assert {slug: entry.error for slug, entry in entries.items() if entry.error} == failures
    assert len(entries) == 26
    assert {(it.first_date, it.last_date, it.finished_at) for it in entries.values()} == {
        (DATES[0], DATES[-1], LATER)
    }
    status = {
        row["workspace"]: row["status"]
        for row in agency.table(sync_log)
        if row["run_id"] == "the bad night"
    }
    assert {slug for slug, word in status.items() if word == "error"} == {rejected, gone}


@pytest.mark.parametrize(
    ("path", "status", "body", "said"),
    [
        pytest.param(SERIES, 503, b"<html>Bad gateway</html>", "answered 503", id="5xx"),
        pytest.param(SERIES, 200, b'{"data": []}', "No number was taken", id="empty"),
        pytest.param(SERIES, 200, b'{"data": [{"label"', "No number was taken", id="cut short"),
        pytest.param(
            SERIES,
            200,
            b'{"data": {"success": false, "message": "Try later"}}',
            "No number was taken",
            id="a failure with status 200",
        ),
        pytest.param(WHO_AM_I, 200, b'{"data": {"id": 1}}', "No number was taken", id="no team"),
    ],
)
def test_an_answer_that_fails_or_is_not_valid_changes_nothing(
    agency: Agency, stage: Stage, path: str, status: int, body: bytes, said: str
) -> None:
    slug = agency.keyed[2]
    agency.synced(DATES, agency.some)
    before = agency.all_rows()
    key = str(agency.key(slug))
    agency.give_key(slug, key, verified_at=None)
    bystander = Bystander(stage.app, key, path, status, body)
    stage.app = bystander
    agency = agency.moved_to(LATER)

    outcomes = agency.sync(DATES, agency.some)

    assert errors(outcomes).keys() == {slug}
    assert said in errors(outcomes)[slug]
    # A 5xx may pass, and is tried again; an answer is an answer.
    assert bystander.calls == (2 if status >= 500 else 1)
    through = {WHO_AM_I: 0, SERIES: 1}[path]
    assert outcomes[slug].api_calls == through + bystander.calls
    healthy = [it for it in agency.some if it != slug]
    assert_only_the_healthy_are_new(agency, healthy, [slug], before)


def test_an_answer_that_fails_on_the_first_night_leaves_no_row_and_no_zero(
    agency: Agency, stage: Stage
) -> None:
    slug = agency.keyed[7]
    stage.app = Bystander(stage.app, str(agency.key(slug)), SERIES, 200, b'{"data": []}')

    assert errors(agency.sync(DATES, [slug, agency.keyed[8]])).keys() == {slug}

    for name, rows in agency.all_rows().items():
        assert {workspace for workspace, _ in rows} == {agency.keyed[8]}, name


class _PoisonedVault(Vault):
    """Fails unexpectedly for one client's API key."""

    def __init__(self, vault: Vault, victim: str) -> None:
        self._vault = vault
        self._victim = victim

    def decrypt(self, token: bytes, workspace: str) -> SecretStr:
        secret = self._vault.decrypt(token, workspace)
        if workspace == self._victim:
            raise ZeroDivisionError(f"over {secret.get_secret_value()}")
        return secret


def test_an_unexpected_error_stays_with_its_client_too(
    agency: Agency, caplog: pytest.LogCaptureFixture
) -> None:
    agency.synced(DATES, agency.some)
    before = agency.all_rows()
    victim, *healthy = agency.some
    vault = _PoisonedVault(agency.app.vault, victim)
    agency = agency.moved_to(LATER)
    poisoned = agency.with_app(vault=vault)

    with caplog.at_level(logging.ERROR, "kpi_pipeline"):
        outcomes = poisoned.sync(DATES, agency.some)

    assert errors(outcomes) == {
        victim: f"{victim}: an unexpected ZeroDivisionError; see the run's log"
    }
    assert_only_the_healthy_are_new(poisoned, healthy, [victim], before)
    assert f"{victim} failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("problem", "is_retried"),
    [(FULL_DISK, False), (SHUT_DOWN, True), (TIMED_OUT, True)],
    ids=["full disk", "shut down", "timed out"],
)
def test_a_full_disk_or_a_lost_server_counts_as_no_try_of_an_event(
    agency: Agency, problem: str, is_retried: bool
) -> None:
    slug = agency.keyed[0]
    agency.synced([TODAY], [slug])
    ingest(inbox_of(agency.app, realtime=False), [lead(1, agency.ids[slug], LATER)])
    fail_first_write(agency.app.engine, slug, problem)

    failed = errors(agency.sync([TODAY], [slug]))

    assert failed.keys() == (set() if is_retried else {slug})
    assert [it["tries"] for it in agency.table(webhook_events)] == [0]
    agency.synced([TODAY], [slug])
    assert [it["status"] for it in agency.table(webhook_events)] == ["applied"]


def test_a_key_that_was_stored_with_another_encryption_key_fails_its_client_alone(
    agency: Agency,
) -> None:
    slug = agency.keyed[1]
    stranger = Vault(SecretStr(new_secret_key()))
    token = stranger.encrypt(SecretStr(str(agency.key(slug))))
    with agency.app.engine.begin() as connection:
        connection.execute(
            client_api_keys.update()
            .where(client_api_keys.c.workspace == slug)
            .values(encrypted_key=token)
        )

    outcomes = agency.sync(DATES, [slug, agency.keyed[2]])

    assert errors(outcomes).keys() == {slug}
    assert "KPI_SECRET_KEY" in errors(outcomes)[slug]
    assert outcomes[slug].api_calls == 0


def test_a_client_of_an_instance_that_is_not_configured_fails_and_is_fetched_from_no_other(
    agency: Agency,
) -> None:
    # The same id as a client of "main": its numbers must not come from that one's host.
    elsewhere = record(agency.ids[agency.keyed[0]], "Far Shore Media", instance="second")
    (slug,) = imported(agency.app.engine, agency.app.vault, elsewhere)

    outcomes = agency.sync(DATES, [agency.keyed[0], slug])

    assert errors(outcomes).keys() == {slug}
    assert errors(outcomes)[slug].startswith(f"{slug}: ")
    assert "'second' is not configured; known: main" in errors(outcomes)[slug]
    assert outcomes[slug].api_calls == 0
    assert {workspace for workspace, _ in agency.rows()} == {agency.keyed[0]}


def test_an_unknown_client_fails_alone(agency: Agency) -> None:
    healthy = agency.keyed[0]

    outcomes = agency.sync(DATES, [healthy, "nobody"])

    assert errors(outcomes).keys() == {"nobody"}
    assert "There is no client nobody" in errors(outcomes)["nobody"]
    assert {workspace for workspace, _ in agency.rows()} == {healthy}
    # What nobody knows has no line in the log of clients.
    assert [row["workspace"] for row in agency.table(sync_log)] == [healthy]


@pytest.mark.parametrize("beside_another", [True, False])
def test_an_inactive_client_is_skipped_with_a_sentence_and_nothing_fails(
    agency: Agency, beside_another: bool
) -> None:
    idle = record(9, "Nobody", active=False)
    assert imported(agency.app.engine, agency.app.vault, idle) == ["nobody"]
    healthy = [agency.keyed[0]] if beside_another else []

    outcomes = agency.sync(DATES, [*healthy, "nobody"])

    assert errors(outcomes) == {}
    assert outcomes["nobody"].skipped == (
        "nobody is skipped. Not active: nobody. Import the client again with active = yes."
    )
    assert [outcomes[it].skipped for it in healthy] == [None for _ in healthy]
    assert {workspace for workspace, _ in agency.rows()} == set(healthy)
    assert [row["workspace"] for row in agency.table(sync_log)] == healthy


def test_a_sync_of_unknown_clients_alone_does_not_start(agency: Agency) -> None:
    with pytest.raises(KpiError, match="There is no client stranger"):
        agency.sync(DATES, ["stranger"])

    assert agency.calls() == {}
    assert agency.table(sync_log) == []


def test_each_outcome_is_reported_and_logged_while_the_others_still_run(
    agency: Agency,
) -> None:
    agency = agency.with_settings(bison_concurrency=1)
    seen: list[tuple[str, int, int]] = []

    def on_done(outcome: ClientOutcome) -> None:
        logged, written = (
            sum(row["workspace"] == outcome.workspace for row in agency.table(table))
            for table in (sync_log, client_metrics)
        )
        seen.append((outcome.workspace, logged, written))

    clients = agency.keyed[:4]
    agency.revoke(clients[2])
    block = PartitionBlock(clients, DATES)
    run_sync(agency.app, block, run_id="watched", on_done=on_done)

    assert sorted(seen) == sorted((slug, 1, 0 if slug == clients[2] else 2) for slug in clients)


def test_a_line_of_the_log_that_cannot_be_written_stops_no_client(agency: Agency) -> None:
    with agency.app.engine.begin() as connection:
        connection.execute(text("DROP TABLE sync_log CASCADE"))

    outcomes = agency.sync(DATES, agency.some)

    assert errors(outcomes) == {}
    assert {workspace for workspace, _ in agency.rows()} == set(agency.some)
