"""Cases: how Email Bison may behave towards a client, and what a sync then has to leave behind."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Literal

import pytest

from kpi_pipeline.db.sync_log import read_entries
from kpi_pipeline.db.tables import client_metrics, kpi_projections, raw_bison_stats, sending_plans
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
from kpi_pipeline_tests.bison_sandbox.running import TODAY, Bison
from kpi_pipeline_tests.conftest import NOW

# Parts of errors: what to do next.
NOT_BELIEVED = "No number was taken from it; run it again"
IS_IT_UP = "Check that Email Bison is up"
GIVE_A_KEY = "Give the client a valid api_key of its workspace in the CSV"
GIVE_A_MASTER_KEY = "Give the instance a valid super-admin key in KPI_BISON_INSTANCES"
SET_INACTIVE = "set the client inactive in the CSV"

Tables = Mapping[str, Rows]
DATES = [TODAY - timedelta(days=1), TODAY]
LATER = NOW + timedelta(hours=1)
_PLANS = ("emails_scheduled_today", "emails_scheduled_tomorrow")
_RUN = "a sync under cases"


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


@dataclass(frozen=True, eq=False)
class Case:
    """Switches of the sandbox, and the result of a sync under them.

    Without an `error`, all numbers are right. Else the rows of the clients that are `whose` stay as
    they were, and each one's error contains all parts of `error`, where `{own}` and `{other}` are
    the ids of the scene's workspaces. With `no_plan`, the sending plan of the victim is not known,
    its columns are NULL, and a warning has all parts of `no_plan`. `struck` is how often the faults
    strike in all, `calls` how many calls the victim takes. If `days_move`, the switch changes to
    which day an event belongs, so the right numbers are read under it.
    """

    name: str
    switches: tuple[Switch, ...]
    error: tuple[str, ...] = ()
    no_plan: tuple[str, ...] = ()
    whose: Literal["keyed", "keyless", "all"] = "keyed"
    struck: int = 0
    calls: int | None = None
    days_move: bool = False
    slow: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)


def of_each(cases: Iterable[Case]) -> pytest.MarkDecorator:
    """Runs a test with each `case`."""
    marks = {True: [pytest.mark.long], False: []}
    rows = [pytest.param(case, id=case.name, marks=marks[case.slow]) for case in cases]
    return pytest.mark.parametrize("case", rows)


def variant(**changed: object) -> Switch:
    """The instance answers in another variant."""
    return lambda scene: scene.bison.variants(**changed)


def fault(kind: str, path: str = SERIES, /, **options: object) -> Switch:
    """Something goes wrong with the victim's calls of one path."""
    return lambda scene: scene.bison.fault(kind, path=path, workspace_id=scene.own_id, **options)


def fault_of_all(kind: str, /, **options: object) -> Switch:
    """Something goes wrong with every client's calls."""
    return lambda scene: scene.bison.fault(kind, path="", **options)


def edited_to_other_id(path: str, pointer: str, **options: object) -> Switch:
    """Another client's workspace id is in the victim's answer."""
    return lambda scene: fault("edit", path, pointer=pointer, value=scene.other_id, **options)(
        scene
    )


def import_key_again(scene: Scene) -> None:
    """Import the victim's API key again, so it is not verified yet."""
    scene.agency.give_key(scene.victim, str(scene.agency.key(scene.victim)))


def delete_workspace(scene: Scene) -> None:
    scene.agency.delete(scene.victim)


def three_clients(agency: Agency) -> list[str]:
    """Two clients with API keys of their own, and one without."""
    return [*agency.keyed[:2], agency.keyless[0]]


def stored(agency: Agency) -> Tables:
    """All rows that syncs store of clients, including the sending plans."""
    return {**agency.all_rows(), sending_plans.name: agency.rows(sending_plans)}


def right_rows(agency: Agency, clients: Sequence[str], dates: Sequence[date] = DATES) -> Tables:
    """The rows of a sync now, by Bison's own totals; Bison must be free of faults."""
    metrics = agency.expected(dates, clients)
    # From the first of the month before: the longest window begins there.
    first, last = (min(dates).replace(day=1) - timedelta(days=1)).replace(day=1), max(dates)
    facts: Rows = {}
    for slug in clients:
        if not agency.key(slug):
            # It is read with the master key.
            agency.bison.switch(agency.ids[slug])
        lines = agency.bison.series(first, last, key=agency.key(slug))
        fields = {label.lower().replace(" ", "_"): counts for label, counts in lines.items()}
        for n in range((last - first).days + 1):
            day = {field: counts[n] for field, counts in fields.items()}
            facts[slug, first + timedelta(days=n)] = day
    assert not all(any(day.values()) for day in facts.values()), "no day without any event"
    return {
        raw_bison_stats.name: facts,
        kpi_projections.name: without(metrics, *_PLANS),
        client_metrics.name: metrics,
    }


_RIGHT_LATER: dict[str, Rows] = {table.name: {} for table in ROW_TABLES}


def right_rows_later(agency: Agency, clients: Sequence[str]) -> Tables:
    """The `right_rows` of LATER, the same in all tests: each client's are read once."""
    assert agency.app.now() == LATER
    known = {slug for slug, _ in _RIGHT_LATER[client_metrics.name]}
    if missing := [slug for slug in clients if slug not in known]:
        for name, rows in right_rows(agency, missing).items():
            _RIGHT_LATER[name] |= rows
    return of_clients(_RIGHT_LATER, clients)


def assert_right(
    agency: Agency, right: Tables, clients: Collection[str], rows: Tables | None = None
) -> None:
    """The clients' stored rows (or `rows`) are the right ones, of now, and there are no others."""
    found = of_clients(rows or agency.all_rows(), clients)
    for name, wanted in of_clients(right, clients).items():
        assert differences(found[name], wanted) == [], name
        for key, row in found[name].items():
            assert row["as_of"] == agency.app.now(), (name, key)


def without_plan(tables: Tables, slug: str, day: date = TODAY) -> Tables:
    """The same rows, but for the sending plan of one client's day, which is not known."""
    metrics = dict(tables[client_metrics.name])
    metrics[slug, day] = {**metrics[slug, day], **dict.fromkeys(_PLANS)}
    return {**tables, client_metrics.name: metrics}


def assert_no_secret(agency: Agency, text: str) -> None:
    keys = [agency.bison.master_key, *filter(None, map(agency.key, agency.keyed))]
    for key in keys:
        assert key.partition("|")[2] not in text


class StruckSync:
    """One sync under the switches of cases, each of which strikes a client of its own."""

    def __init__(
        self, agency: Agency, victims: Mapping[str, Case], other: str, clients: Sequence[str]
    ) -> None:
        self.agency = agency
        self._scenes = {case: Scene(agency, victim, other) for victim, case in victims.items()}
        self._failing = {
            case: [] if not case.error else clients if case.whose == "all" else [victim]
            for victim, case in victims.items()
        }
        failing = {slug for slugs in self._failing.values() for slug in slugs}
        self._healthy = [slug for slug in clients if slug not in failing]
        self.right = right_rows_later(agency, clients)
        for victim, case in victims.items():
            if case.no_plan:
                self.right = without_plan(self.right, victim)
        self._before = stored(agency)
        settings: dict[str, object] = {}
        faults: dict[Case, slice] = {}
        for case, scene in self._scenes.items():
            first = len(agency.bison.struck())
            for switch in case.switches:
                switch(scene)
            faults[case] = slice(first, len(agency.bison.struck()))
            settings |= case.settings

        self._outcomes = agency.with_settings(**settings).sync(DATES, clients, run_id=_RUN)

        struck = agency.bison.struck()
        self._struck = {case: sum(struck[created]) for case, created in faults.items()}
        self._after = stored(agency)
        assert errors(self._outcomes).keys() == failing
        with agency.app.engine.connect() as connection:
            logged = {entry.workspace: entry.error for entry in read_entries(connection, [_RUN])}
        assert logged == {slug: outcome.error for slug, outcome in self._outcomes.items()}

    def assert_holds(self, case: Case) -> None:
        """The case ended as it says, and left its client's rows as they were or right."""
        scene, failing = self._scenes[case], self._failing[case]
        assert self._struck[case] == case.struck
        assert case.calls in (None, self._outcomes[scene.victim].api_calls)
        for slug in failing:
            assert not self._outcomes[slug].numbers
            _assert_clear(scene, case.error, slug, str(self._outcomes[slug].error))
        assert of_clients(self._after, failing) == of_clients(self._before, failing)
        if not failing:
            assert_right(self.agency, self.right, [scene.victim], self._after)
        plans = of_clients(self._after, [scene.victim])[sending_plans.name]
        warning = self._outcomes[scene.victim].warning
        if case.no_plan:
            assert {plans[scene.victim, TODAY][name] for name in _PLANS} == {None}
            _assert_clear(scene, case.no_plan, scene.victim, str(warning))
        else:
            assert warning is None

    def assert_others_are_right(self) -> None:
        """Every client without a failure has all its right rows."""
        assert_right(self.agency, self.right, self._healthy, self._after)

    def rows_of(self, case: Case) -> Tables:
        """The rows of the case's client afterwards."""
        return of_clients(self._after, [self._scenes[case].victim])


def _assert_clear(scene: Scene, parts: Sequence[str], slug: str, error: str) -> None:
    """The text says in one line what was seen and what to do, and contains no secret."""
    assert error.startswith(f"{slug}: "), error
    assert error.endswith("."), error
    assert error.isprintable(), f"not on one line: {error!r}"
    for part in parts:
        assert part.format(own=scene.own_id, other=scene.other_id) in error, error
    assert_no_secret(scene.agency, error)
