"""What is right, asked of Email Bison itself, and what a sync left behind, compared with it."""

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime, timedelta

from kpi_pipeline.db.sync_log import read_entries
from kpi_pipeline.db.tables import (
    client_metrics,
    kpi_projections,
    raw_bison_stats,
    sending_plans,
)
from kpi_pipeline.sync.run import ClientOutcome
from kpi_pipeline_tests.bison_sandbox.running import TODAY, WORKSPACES
from kpi_pipeline_tests.conftest import NOW
from kpi_pipeline_tests.sync.support import (
    ROW_TABLES,
    Agency,
    Rows,
    differences,
    errors,
    of_clients,
    without,
)
from kpi_pipeline_tests.sync.variants.cases import Case, Scene

Tables = Mapping[str, Rows]
RUN = "a night of trouble"
DATES = [TODAY - timedelta(days=1), TODAY]
LATER = NOW + timedelta(hours=1)
_PLANS = ("emails_scheduled_today", "emails_scheduled_tomorrow")
_COUNT_OF_LABEL = {
    "Sent": "sent",
    "Replied": "replied",
    "Interested": "interested",
    "Bounced": "bounced",
    "Unsubscribed": "unsubscribed",
    "Total Opens": "total_opens",
    "Unique Opens": "unique_opens",
}


def what_is_right(agency: Agency, dates: Sequence[date], clients: Sequence[str]) -> Tables:
    """What the three tables hold after a sync now; Email Bison must be asked without faults."""
    metrics = agency.expected(dates, clients)
    facts: Rows = {}
    for slug in clients:
        facts |= _daily_counts(agency, slug, dates)
    return {
        raw_bison_stats.name: facts,
        kpi_projections.name: without(metrics, *_PLANS),
        client_metrics.name: metrics,
    }


def _daily_counts(agency: Agency, slug: str, dates: Sequence[date]) -> Rows:
    last, day = max(dates), timedelta(days=1)
    # From the first of the month before: so far back reaches the longest window.
    first = (min(dates).replace(day=1) - day).replace(day=1)
    lines = agency.bison.series(first, last, key=agency.key(slug) or _new_key(agency, slug))
    days = [first + n * day for n in range((last - first).days + 1)]
    return {
        (slug, it): {_COUNT_OF_LABEL[label]: counts[n] for label, counts in lines.items()}
        for n, it in enumerate(days)
    }


def _new_key(agency: Agency, slug: str) -> str:
    path = f"{WORKSPACES}/{agency.ids[slug]}/api-tokens"
    answer = agency.bison.call("POST", path, json={"name": "an independent reading"})
    token: str = answer.raise_for_status().json()["data"]["plain_text_token"]
    return token


def everything(agency: Agency) -> Tables:
    """All that syncs store of clients, the sending plans included."""
    return {**agency.all_rows(), sending_plans.name: agency.rows(sending_plans)}


def assert_right(agency: Agency, right: Tables, clients: Collection[str]) -> None:
    """The clients' rows are the right ones, of now, and no row is one too many."""
    stored, wanted = of_clients(agency.all_rows(), clients), of_clients(right, clients)
    for table in ROW_TABLES:
        assert differences(stored[table.name], wanted[table.name]) == [], table.name
        for key, row in stored[table.name].items():
            assert row["as_of"] == agency.app.now(), (table.name, key)


def assert_told(case: Case, scene: Scene, outcomes: Mapping[str, ClientOutcome]) -> None:
    """Who failed says in one clear sentence or two what was seen and what to do; nobody else."""
    told = errors(outcomes)
    assert told.keys() == (set(scene.victims) if case.said else set()), told
    for slug, error in told.items():
        assert error.startswith(f"{slug}: "), error
        assert error.endswith("."), error
        assert error.isprintable(), f"not on one line: {error!r}"
        for piece in case.said:
            assert piece.format(own=scene.own_id, other=scene.other_id) in error, error
        assert_no_secret(scene.agency, error)
        assert not outcomes[slug].numbers
    with scene.agency.app.engine.connect() as connection:
        logged = {it.workspace: it.error for it in read_entries(connection, [RUN])}
    assert logged == {slug: outcome.error for slug, outcome in outcomes.items()}


def assert_no_secret(agency: Agency, text: str) -> None:
    keys = [agency.bison.master_key, *filter(None, map(agency.key, agency.keyed))]
    for key in keys:
        assert key.partition("|")[2] not in text


def sync_under(case: Case, scene: Scene, dates: Sequence[date]) -> Mapping[str, ClientOutcome]:
    """Set the case's switches and sync; they must have made the difference that it tells of."""
    for switch in case.switches:
        switch(scene)
    outcomes = scene.agency.with_settings(**case.settings).sync(dates, scene.clients, run_id=RUN)
    assert sum(scene.bison.struck()) == case.struck
    assert case.calls in (None, outcomes[scene.victim].api_calls)
    return outcomes


class Right:
    """What is right at an instant, asked once: the sandbox tells the same in every test."""

    def __init__(self) -> None:
        self._known: dict[datetime, Tables] = {}

    def at(self, agency: Agency, dates: Sequence[date], clients: Sequence[str]) -> Tables:
        now = agency.app.now()
        if now not in self._known:
            self._known[now] = what_is_right(agency, dates, clients)
            facts = self._known[now][raw_bison_stats.name].values()
            assert not all(any(day.values()) for day in facts), "no day without any event"
        return self._known[now]
