"""A stored row equals its inputs after every step, whatever happens, and in whatever order."""

import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from threading import Thread
from zoneinfo import ZoneInfo

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from pydantic import SecretStr
from sqlalchemy import Engine, event

from kpi_pipeline.db.coordination.locks import lock_clients
from kpi_pipeline.db.recompute import update_rows
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.domain.calendar import (
    LONGEST_LOOK_BACK_DAYS,
    days_between,
    fetch_period,
    nightly_dates,
)
from kpi_pipeline.inbox.ingest import inbox_of
from kpi_pipeline.inbox.replay import replay
from kpi_pipeline.inbox.retention import delete_finished_events, purge
from kpi_pipeline.inbox.rezone import adopt_day_zone
from kpi_pipeline_tests.databases import KeptDatabase
from kpi_pipeline_tests.equality.installation import CLIENTS, Installation

# Clocks change on 8 March and on 1 November, and a year ends.
STARTS = [
    datetime(2026, 2, 25, 15, tzinfo=UTC),
    datetime(2025, 12, 27, 4, 30, tzinfo=UTC),
    datetime(2026, 10, 27, 5, 30, tzinfo=UTC),
]
ZONES = [ZoneInfo(name) for name in ("America/Chicago", "UTC", "Pacific/Auckland")]
client = st.sampled_from(list(CLIENTS))
metrics = st.sampled_from(["sent", "interested"])


class BrokenOffError(Exception):
    """A transaction ends in the middle."""


class Everything(RuleBasedStateMachine):
    """Everything that changes an input of a row, one step after the other."""

    def __init__(self, engine: Engine, vault: Vault) -> None:
        super().__init__()
        self.engine, self.vault = engine, vault
        self.active = dict.fromkeys(CLIENTS, True)
        self.api_keys = 0
        self.statements_left: int | None = None
        event.listen(engine, "before_cursor_execute", self._count_statement)

    def _count_statement(self, *_: object) -> None:
        if self.statements_left is not None:
            self.statements_left -= 1
            if self.statements_left < 0:
                self.statements_left = None
                raise BrokenOffError

    @initialize(start=st.sampled_from(STARTS), zone=st.sampled_from(ZONES), rows=st.integers(1, 12))
    def install(self, start: datetime, zone: ZoneInfo, rows: int) -> None:
        self.at = Installation(self.engine, self.vault, start, zone, rows)

    def sync(self, dates: Sequence[date], *, fetch: bool = True) -> None:
        if any(self.active.values()):
            self.at.sync(dates, fetch=fetch)

    @rule()
    def a_minute_passes(self) -> None:
        """The first rule in Hypothesis's order: its first, simplest run has no other step."""
        self.at.truth.now += timedelta(minutes=1)

    @rule(hours=st.integers(1, 20))
    def hours_pass(self, hours: int) -> None:
        self.at.truth.now += timedelta(hours=hours, minutes=7)

    @rule(days=st.integers(1, 12))
    def the_service_is_away(self, days: int) -> None:
        self.at.truth.now += timedelta(days=days)

    @rule()
    def a_night(self) -> None:
        self.sync(days_between(*nightly_dates(self.at.today)))

    @rule()
    def an_hour(self) -> None:
        self.sync([self.at.today - timedelta(days=1), self.at.today])

    @rule(back=st.integers(1, 40), days=st.integers(1, 5), fetch=st.booleans())
    def a_person_materializes(self, back: int, days: int, *, fetch: bool) -> None:
        first = self.at.today - timedelta(days=back)
        self.sync(days_between(first, first + timedelta(days=min(days, back))), fetch=fetch)

    @rule(slug=client, back=st.integers(0, 58), metric=metrics, by=st.sampled_from([-2, -1, 1, 3]))
    def a_day_is_revised(self, slug: str, back: int, metric: str, by: int) -> None:
        self.at.truth.revised[slug, self.at.today - timedelta(days=back), metric] += by

    @rule(
        slug=client,
        metric=metrics,
        late=st.sampled_from([0, 0, 1, 3, 30, 400]),
        times=st.integers(1, 3),
        realtime=st.booleans(),
    )
    def an_event_arrives(
        self, slug: str, metric: str, late: int, times: int, realtime: bool
    ) -> None:
        body = self.at.bodies(slug, metric, late=timedelta(hours=late))
        self.at.deliver(*[body] * times, realtime=realtime)

    @rule(
        slug=client,
        metric=metrics,
        late=st.sampled_from([0, 1, 30]),
        webhook=st.sampled_from([None, "before", "after"]),
    )
    def the_feed_is_read(self, slug: str, metric: str, late: int, webhook: str | None) -> None:
        """An event is in the feed, whether or not a webhook brings it, too."""
        recorded_at = self.at.truth.now - timedelta(hours=late)
        body = self.at.bodies(slug, metric, late=timedelta(hours=late))
        if webhook == "before":
            self.at.deliver(body)
        self.at.read_feed(slug, body, recorded_at)
        if webhook == "after":
            self.at.deliver(body)

    @rule()
    def somebody_calls_the_function(self) -> None:
        self.at.call_function()

    @rule()
    def the_sensor_applies_what_waits(self) -> None:
        self.at.apply_waiting()

    @rule()
    def a_person_replays_all_events(self) -> None:
        replay(inbox_of(self.at.app, realtime=True))

    @rule(slug=client, leads=st.sampled_from([None, 0, 40]), emails=st.sampled_from([None, 900]))
    def a_target_is_changed(self, slug: str, leads: int | None, emails: int | None) -> None:
        self.at.write(slug, monthly_kpi_target=leads, monthly_sending_target=emails)

    @rule(slug=client, label=st.sampled_from([None, "A label", "Another"]))
    def a_label_is_changed(self, slug: str, label: str | None) -> None:
        self.at.write(slug, display_name=label)

    @rule(slug=client, active=st.booleans())
    def a_client_goes_or_comes_back(self, slug: str, active: bool) -> None:
        self.at.write(slug, active=active)
        self.active[slug] = active

    @rule(slug=client)
    def an_api_key_is_rotated(self, slug: str) -> None:
        self.api_keys += 1
        self.at.write(slug, api_key=SecretStr(f"{self.api_keys}|{'b' * 48}"))

    @rule(zone=st.sampled_from(ZONES))
    def another_zone_is_adopted(self, zone: ZoneInfo) -> None:
        adopt_day_zone(self.engine, zone)
        self.at.truth.zone = zone

    @rule()
    def old_events_are_deleted(self) -> None:
        inbox = inbox_of(self.at.app, realtime=True)
        delete_finished_events(inbox)
        purge(inbox, older_than_days=30)

    @rule(slug=client)
    def an_answer_lists_no_day(self, slug: str) -> None:
        self.at.truth.empty = {slug}
        self.a_night()
        self.at.truth.empty = set()

    @rule(statements=st.integers(3, 40), slug=client, metric=metrics, night=st.booleans())
    def a_transaction_is_interrupted(
        self, statements: int, slug: str, metric: str, night: bool
    ) -> None:
        body = self.at.bodies(slug, metric)
        self.statements_left = statements
        with suppress(BrokenOffError):
            if night:
                self.a_night()
            else:
                self.at.deliver(body)
        self.statements_left = None

    @rule(slug=client, metric=metrics)
    def two_write_at_once(self, slug: str, metric: str) -> None:
        body = self.at.bodies(slug, metric)
        writers: list[Callable[[], None]] = [self.an_hour, lambda: self.at.deliver(body, body)]
        threads = [Thread(target=it) for it in writers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    @rule()
    def all_rows_are_recomputed(self) -> None:
        with self.engine.begin() as connection:
            lock_clients(connection, CLIENTS)
            zone = self.at.truth.zone
            update_rows(connection, list(CLIENTS), since=date.min, zone=zone, source="recompute")

    @invariant()
    def every_row_equals_its_inputs(self) -> None:
        assert self.at.differences() == []

    def teardown(self) -> None:
        """After whatever happened, one night puts everything right."""
        try:
            if hasattr(self, "at"):
                self.a_night()
                self.every_row_equals_its_inputs()
                for slug in (it for it, active in self.active.items() if active):
                    period = fetch_period(*nightly_dates(self.at.today))
                    assert self.at.untrue_facts(slug, *period) == []
                    dates = list(self.at.numbers("source", slug))
                    # A sync goes no further back, however long the service was away.
                    longest = self.at.app.settings.series_max_days - LONGEST_LOOK_BACK_DAYS
                    first = max(dates[0], self.at.today - timedelta(days=longest))
                    # A zone that was ahead may have left a row of tomorrow.
                    lacking = {*days_between(first, self.at.today)} - {*dates}
                    assert not lacking, f"{slug} lacks days"
        finally:
            event.remove(self.engine, "before_cursor_execute", self._count_statement)


# Three processes share the runs: 9 in `make test`, and in `make test-long` as many as RUNS says.
@pytest.mark.thorough
@pytest.mark.runs
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("part", ["part 1", "part 2", "part 3"])
def test_every_stored_row_equals_its_inputs_after_every_step(
    engine: Engine,
    vault: Vault,
    _kept_database: KeptDatabase,  # noqa: PT019 - emptied for each run
    part: str,
) -> None:
    del part  # A name for the process.

    def installed() -> Everything:
        _kept_database.reset()
        return Everything(engine, vault)

    runs = math.ceil(int(os.environ.get("PYTEST_RUNS", "6")) / 3)
    # And the simplest one.
    sixty_steps = settings(max_examples=runs + 1, stateful_step_count=60, deadline=None)
    run_state_machine_as_test(installed, settings=sixty_steps)  # type: ignore[arg-type]
