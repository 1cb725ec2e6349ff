"""Cases: how Email Bison may behave towards a client, and what a sync then has to leave behind."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Literal

import pytest

from kpi_pipeline.db.sync_log import read_entries
from kpi_pipeline.db.tables import (
    client_metrics,
    kpi_projections,
    raw_bison_stats,
    sending_plans,
)
from kpi_pipeline.sync.run import ClientOutcome
from kpi_pipeline_tests.agency import (
    ROW_TABLES,
    SERIES,
    Agency,
    Rows,
    differences,
    errors,
    of_clients,
    without,
)
from kpi_pipeline_tests.bison_sandbox.running import TODAY, WORKSPACES, Bison
from kpi_pipeline_tests.conftest import NOW

# Parts of errors: what to do next.
NOT_BELIEVED = "No number was taken from it; run it again"
IS_IT_UP = "Check that Email Bison is up"
GIVE_A_KEY = "Give the client a valid api_key of its workspace in the CSV"
GIVE_A_MASTER_KEY = "Give the instance a valid super-admin key in KPI_BISON_INSTANCES"
CORRECT_THE_CSV = "Correct the client's bison_workspace_id or its api_key in the CSV"
SET_INACTIVE = "set the client inactive in the CSV"

Tables = Mapping[str, Rows]
RUN = "a night of failures"
DATES = [TODAY - timedelta(days=1), TODAY]
LATER = NOW + timedelta(hours=1)
_PLANS = ("emails_scheduled_today", "emails_scheduled_tomorrow")


@dataclass(frozen=True)
class Scene:
    """The client that a case strikes, and another one with an API key of its own."""

    agency: Agency
    victim: str
    other: str

    @property
    def bison(self) -> Bison:
        return self.agency.bison

    @property
    def own_id(self) -> int:
        return self.agency.ids[self.victim]

    @property
    def other_id(self) -> int:
        return self.agency.ids[self.other]


Switch = Callable[[Scene], object]


@dataclass(frozen=True)
class Case:
    """Switches of the sandbox, and the result of a sync under them.

    With nothing `said`, all numbers are right. Else those of the clients that are `whose` stay as
    they were, and each one's error contains all of `said`, where `{own}` and `{other}` are the ids
    of the scene's workspaces. `struck` is how often the faults strike in all, `calls` how many
    calls the victim takes. If `days_move`, the switch changes to which day an event belongs, so the
    right numbers are asked under it.
    """

    name: str
    switches: tuple[Switch, ...]
    said: tuple[str, ...] = ()
    whose: Literal["keyed", "keyless", "all"] = "keyed"
    struck: int = 0
    calls: int | None = None
    days_move: bool = False
    slow: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)


def rows(cases: Iterable[Case]) -> Sequence[object]:
    """Parameters of a test, one for each case."""
    return [
        pytest.param(case, id=case.name, marks=[pytest.mark.long] if case.slow else [])
        for case in cases
    ]


def variant(**changed: object) -> Switch:
    """The instance answers in another variant."""
    return lambda scene: scene.bison.variants(**changed)


def fault(kind: str, path: str = SERIES, /, **options: object) -> Switch:
    """Something goes wrong with the victim's calls of one path."""
    return lambda scene: scene.bison.fault(kind, path=path, workspace_id=scene.own_id, **options)


def fault_of_all(kind: str, path: str = "", /, **options: object) -> Switch:
    """Something goes wrong with every client's calls."""
    return lambda scene: scene.bison.fault(kind, path=path, **options)


def edited_to_other_id(path: str, pointer: str, **options: object) -> Switch:
    """Another client's workspace id is in the victim's answer."""
    return lambda scene: fault("edit", path, pointer=pointer, value=scene.other_id, **options)(
        scene
    )


def import_key_again(scene: Scene) -> None:
    """Import the victim's API key again, so it is not verified yet."""
    scene.agency.give_key(scene.victim, str(scene.agency.key(scene.victim)))


def delete_workspace(scene: Scene) -> None:
    """Delete the victim's workspace."""
    scene.agency.delete(scene.victim)


def everything(agency: Agency) -> Tables:
    """All rows that syncs store of clients, including the sending plans."""
    return {**agency.all_rows(), sending_plans.name: agency.rows(sending_plans)}


class Right:
    """What a sync at an instant has to store, by Bison's own totals; each client is asked once."""

    def __init__(self) -> None:
        self._known: dict[tuple[datetime, str], Tables] = {}

    def at(self, agency: Agency, clients: Sequence[str]) -> Tables:
        """The right rows of DATES; Email Bison must be free of faults if they are not known yet."""
        now = agency.app.now()
        for slug in clients:
            if (now, slug) not in self._known:
                self._known[now, slug] = what_is_right(agency, DATES, [slug])
        parts = [self._known[now, slug] for slug in clients]
        tables = {
            table.name: {key: row for part in parts for key, row in part[table.name].items()}
            for table in ROW_TABLES
        }
        facts = tables[raw_bison_stats.name].values()
        assert not all(any(day.values()) for day in facts), "no day without any event"
        return tables


def what_is_right(agency: Agency, dates: Sequence[date], clients: Sequence[str]) -> Tables:
    """The rows of a sync now; Email Bison must be free of faults."""
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
    # From the first of the month before: the longest window begins there.
    first = (min(dates).replace(day=1) - day).replace(day=1)
    lines = agency.bison.series(first, last, key=agency.key(slug) or _new_key(agency, slug))
    return {
        (slug, first + n * day): {
            label.lower().replace(" ", "_"): counts[n] for label, counts in lines.items()
        }
        for n in range((last - first).days + 1)
    }


def _new_key(agency: Agency, slug: str) -> str:
    path = f"{WORKSPACES}/{agency.ids[slug]}/api-tokens"
    answer = agency.bison.call("POST", path, json={"name": "an independent reading"})
    return str(answer.raise_for_status().json()["data"]["plain_text_token"])


def assert_right(agency: Agency, right: Tables, clients: Collection[str]) -> None:
    """The clients' stored rows are the right ones, of now, and there are no others."""
    assert_are_right(agency, agency.all_rows(), right, clients)


def assert_are_right(
    agency: Agency, stored: Tables, right: Tables, clients: Collection[str]
) -> None:
    of_stored, wanted = of_clients(stored, clients), of_clients(right, clients)
    for table in ROW_TABLES:
        assert differences(of_stored[table.name], wanted[table.name]) == [], table.name
        for key, row in of_stored[table.name].items():
            assert row["as_of"] == agency.app.now(), (table.name, key)


def assert_is_clear(scene: Scene, case: Case, slug: str, outcome: ClientOutcome) -> None:
    """The error says in one line what was seen and what to do, and contains no secret."""
    error = str(outcome.error)
    assert error.startswith(f"{slug}: "), error
    assert error.endswith("."), error
    assert error.isprintable(), f"not on one line: {error!r}"
    for piece in case.said:
        assert piece.format(own=scene.own_id, other=scene.other_id) in error, error
    assert_no_secret(scene.agency, error)
    assert not outcome.numbers


def assert_no_secret(agency: Agency, text: str) -> None:
    keys = [agency.bison.master_key, *filter(None, map(agency.key, agency.keyed))]
    for key in keys:
        assert key.partition("|")[2] not in text


def logged_errors(agency: Agency) -> dict[str, str | None]:
    """The errors in the log of the run, by workspace."""
    with agency.app.engine.connect() as connection:
        return {it.workspace: it.error for it in read_entries(connection, [RUN])}


class Night:
    """One sync of all clients in which each case strikes a client of its own."""

    MOST = 20

    def __init__(self, agency: Agency, cases: Sequence[Case], right: Right) -> None:
        other, *victims = agency.keyed
        self.agency = agency
        self.scenes = {
            case.name: Scene(agency, victim, other)
            for case, victim in zip(cases, victims, strict=False)
        }
        failing = {self.scenes[case.name].victim for case in cases if case.said}
        self.healthy = [slug for slug in agency.workspaces if slug not in failing]
        self.right = right.at(agency, self.healthy)
        self.before = everything(agency)
        self._faults = {}
        for case in cases:
            first = len(agency.bison.struck())
            for switch in case.switches:
                switch(self.scenes[case.name])
            self._faults[case.name] = slice(first, len(agency.bison.struck()))
        self.outcomes = agency.sync(DATES, run_id=RUN)
        self._struck = agency.bison.struck()
        self.after = everything(agency)
        assert logged_errors(agency) == {slug: it.error for slug, it in self.outcomes.items()}
        assert errors(self.outcomes).keys() == failing

    def struck(self, case: Case) -> int:
        return sum(self._struck[self._faults[case.name]])


class Nights:
    """Nights over all of `cases`, each with a fresh sandbox."""

    def __init__(self, cases: Sequence[Case], night: Callable[[Sequence[Case]], Night]) -> None:
        self._all = [
            night(cases[start : start + Night.MOST]) for start in range(0, len(cases), Night.MOST)
        ]

    def assert_holds(self, case: Case) -> None:
        """The case ended as it says, and left its client's rows as they were or right."""
        (night,) = (it for it in self._all if case.name in it.scenes)
        scene = night.scenes[case.name]
        outcome = night.outcomes[scene.victim]
        assert night.struck(case) == case.struck
        assert case.calls in (None, outcome.api_calls)
        if case.said:
            assert_is_clear(scene, case, scene.victim, outcome)
            own = [scene.victim]
            assert of_clients(night.after, own) == of_clients(night.before, own)
        else:
            assert outcome.error is None
            assert_are_right(night.agency, night.after, night.right, [scene.victim])

    def rows_of(self, case: Case) -> Tables:
        """The rows of the case's client afterwards."""
        (night,) = (it for it in self._all if case.name in it.scenes)
        return of_clients(night.after, [night.scenes[case.name].victim])

    def assert_others_are_right(self) -> None:
        """Every client without a failure has all its right rows, in each night."""
        for night in self._all:
            assert_are_right(night.agency, night.after, night.right, night.healthy)


def three_clients(agency: Agency) -> list[str]:
    """Two clients with API keys of their own, and one without."""
    return [*agency.keyed[:2], agency.keyless[0]]


def assert_holds_alone(case: Case, agency: Agency, right: Right) -> None:
    """The case's switches, in a sync of three clients, end as the case says."""
    clients = three_clients(agency)
    keyless = case.whose == "keyless"
    scene = Scene(agency, clients[2] if keyless else clients[0], clients[1])
    failing = [] if not case.said else clients if case.whose == "all" else [scene.victim]
    before, numbers = everything(agency), right.at(agency, clients)
    for switch in case.switches:
        switch(scene)

    outcomes = agency.with_settings(**case.settings).sync(DATES, clients, run_id=RUN)

    assert sum(scene.bison.struck()) == case.struck
    assert case.calls in (None, outcomes[scene.victim].api_calls)
    assert errors(outcomes).keys() == set(failing), errors(outcomes)
    for slug in failing:
        assert_is_clear(scene, case, slug, outcomes[slug])
    assert logged_errors(agency) == {slug: it.error for slug, it in outcomes.items()}
    after = everything(agency)
    assert of_clients(after, failing) == of_clients(before, failing)
    if case.days_move:
        moved = what_is_right(agency, DATES, clients)
        assert moved != numbers
        numbers = moved
    assert_are_right(agency, after, numbers, [it for it in clients if it not in failing])
