"""A 429 that does not say how long to wait."""

import pytest
from sqlalchemy import func, update

from kpi_pipeline.db.tables import bison_pacing
from kpi_pipeline_tests.sync.support import Agency, errors, of_clients
from kpi_pipeline_tests.sync.variants.cases import Scene, Switch, fault, fault_of_all, variant
from kpi_pipeline_tests.sync.variants.checks import DATES, Right, assert_right, everything


@pytest.mark.parametrize(
    "switches",
    [
        pytest.param(
            [fault("status", status=429, retry_after=False, times=1)], id="of one key's call"
        ),
        pytest.param(
            [variant(retry_after=False), fault_of_all("status", status=429, times=1)],
            id="by an instance that never says it",
        ),
    ],
)
def test_a_429_without_retry_after_holds_everybody_back_for_45_to_60_seconds(
    an_hour_later: Agency, right: Right, switches: list[Switch]
) -> None:
    scene = Scene(an_hour_later, "keyed")
    before = everything(scene.agency)
    numbers = right.at(scene.agency, DATES, scene.clients)
    for switch in switches:
        switch(scene)

    # Another try would wait for the end of the pause.
    hasty = scene.agency.with_settings(bison_attempts=1)
    told = errors(hasty.sync(DATES, [scene.victim]))

    assert told.keys() == {scene.victim}
    assert "answered 429 (Too Many Attempts) at try 1 of 1" in told[scene.victim]
    assert everything(scene.agency) == before
    (pacing,) = scene.agency.table(bison_pacing)
    assert 45 <= (pacing["next_free_at"] - pacing["updated_at"]).total_seconds() <= 60

    _end_the_pause(scene.agency)
    assert errors(scene.agency.sync(DATES, [scene.victim])) == {}
    assert_right(scene.agency, numbers, [scene.victim])
    others = [slug for slug in scene.clients if slug != scene.victim]
    assert of_clients(everything(scene.agency), others) == of_clients(before, others)


def _end_the_pause(agency: Agency) -> None:
    with agency.app.engine.begin() as connection:
        connection.execute(update(bison_pacing).values(next_free_at=func.clock_timestamp()))
