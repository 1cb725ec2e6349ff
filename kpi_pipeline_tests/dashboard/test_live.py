"""A change that is committed reaches every open page, rendered once for all that show the same."""

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from kpi_pipeline.dashboard.live import Live
from kpi_pipeline_tests.cli.running import wait_until
from kpi_pipeline_tests.dashboard.live_support import (
    Renderer,
    ServedLive,
    served_live,
)
from kpi_pipeline_tests.dashboard.rows import TODAY, put_clients, put_rows

_ADD_ONE = text(
    "UPDATE client_metrics SET positive_replies_mtd = positive_replies_mtd + 1 "
    "WHERE workspace = ANY(:workspaces)"
)


@pytest.fixture
def served(engine: Engine) -> Iterator[ServedLive]:
    put_clients(engine, "acme", "beta", "cobalt")
    for workspace in ("acme", "beta", "cobalt"):
        put_rows(engine, workspace)
    with served_live(Live(engine, lambda: TODAY), Renderer()) as opened:
        # The first notification says that the feed listens.
        wait_until(lambda: opened.live.version.endswith("-1"), "the feed")
        yield opened


def change(engine: Engine, *workspaces: str) -> None:
    with engine.begin() as connection:
        connection.execute(_ADD_ONE, {"workspaces": list(workspaces)})


def test_a_committed_change_reaches_an_open_page_within_a_second(
    served: ServedLive, engine: Engine
) -> None:
    page = served.open()
    change(engine, "acme")
    # A page that came just now gets everything once.
    assert page.next("change").data == "everything"
    change(engine, "acme")
    committed = time.monotonic()
    event = page.next("change")
    assert event.data == "acme"
    assert event.version == served.live.version
    assert event.at - committed < 1
