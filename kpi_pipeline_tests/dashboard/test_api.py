"""The data API, over HTTP without a server."""

import csv
import io
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import httpx
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from sqlalchemy import Engine, QueuePool, select, update
from starlette.responses import StreamingResponse

from kpi_pipeline.cli import export
from kpi_pipeline.dashboard.api.answers import csv_answer, csv_lines
from kpi_pipeline.dashboard.site import Site
from kpi_pipeline.db.exports import EXPORT_COLUMNS, RowFilter
from kpi_pipeline.db.facts import SendingPlan, store_plan
from kpi_pipeline.db.recompute import write_rows
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.tables import client_metrics
from kpi_pipeline_tests.db.stocked import (
    AS_OF,
    CHICAGO,
    TODAY,
    api_key,
    imported,
    record,
    stock_facts,
)

YESTERDAY = TODAY - timedelta(days=1)
ROWS = "/api/client-metrics"


@pytest.fixture
def api(browse: httpx.Client, engine: Engine, vault: Vault) -> httpx.Client:
    """Three clients, of which two have rows of yesterday and today, and one is inactive."""
    imported(
        engine,
        vault,
        record(101, "Harbor", api_key=api_key(7), monthly_sending_target=4_000),
        record(102, "Quay", display_name='=Quay & "Co"', monthly_kpi_target=None),
        record(103, "Sloop", active=False),
    )
    with engine.begin() as connection:
        for workspace, replies in (("harbor", 3), ("sloop", 4)):
            stock_facts(connection, workspace, interested=replies)
            store_plan(connection, workspace, SendingPlan(TODAY, 320, 350, AS_OF))
            write_rows(connection, {workspace: [YESTERDAY, TODAY]}, CHICAGO, "sync")
    return browse


def rows(api: httpx.Client, query: str = "") -> list[dict[str, Any]]:
    answer = api.get(f"{ROWS}?{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["rows"]
    return found


def places(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(row["workspace"], row["metric_date"]) for row in found]


def sentence(api: httpx.Client, query: str, status: int = 400) -> str:
    answer = api.get(f"{ROWS}?{query}")
    assert answer.status_code == status
    found: str = answer.json()["error"]
    return found


def test_every_column_of_every_row_is_that_of_the_table(api: httpx.Client, engine: Engine) -> None:
    with engine.connect() as connection:
        stored = connection.execute(
            select(client_metrics).order_by(
                client_metrics.c.workspace, client_metrics.c.metric_date
            )
        ).mappings()
        expected = [{name: plain(row[name]) for name in EXPORT_COLUMNS} for row in stored]
    assert rows(api) == expected
    assert len(expected) == 4


def plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    return value.isoformat() if hasattr(value, "isoformat") else value


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("date=2026-03-18", [("harbor", "2026-03-18"), ("sloop", "2026-03-18")]),
        ("from=2026-03-18", [("harbor", "2026-03-18"), ("sloop", "2026-03-18")]),
        ("to=2026-03-17&workspace=sloop", [("sloop", "2026-03-17")]),
        (
            "date=2026-03-17&workspace=sloop,harbor",
            [("harbor", "2026-03-17"), ("sloop", "2026-03-17")],
        ),
        ("date=2026-03-17&workspace=sloop&workspace=quay", [("sloop", "2026-03-17")]),
        ("date=2026-03-19", []),
    ],
)
def test_rows_are_filtered_by_date_and_client(
    api: httpx.Client, query: str, found: list[tuple[str, str]]
) -> None:
    assert places(rows(api, query)) == found


def test_columns_come_in_the_order_in_which_they_are_asked_for(api: httpx.Client) -> None:
    found = rows(api, "date=2026-03-18&workspace=harbor&columns=positive_replies_mtd,workspace")
    assert [list(row.items()) for row in found] == [
        [("positive_replies_mtd", 54), ("workspace", "harbor")]
    ]


def test_pages_hold_every_row_once(api: httpx.Client) -> None:
    path: str | None = f"{ROWS}?limit=1&columns=workspace,metric_date"
    found = []
    while path:
        page = api.get(path).json()
        found += places(page["rows"])
        path = page["next"]
    assert found == places(rows(api))
    assert len(found) == 4


def test_an_answer_is_not_sent_again_until_a_row_of_it_changes(
    api: httpx.Client, engine: Engine
) -> None:
    tag = api.get(f"{ROWS}?date=2026-03-18").headers["etag"]

    def status(query: str) -> int:
        return api.get(f"{ROWS}?{query}", headers={"If-None-Match": f'"x", {tag}'}).status_code

    assert status("date=2026-03-18") == 304
    assert status("date=2026-03-18&format=csv") == 200, "another answer has another tag"
    change = update(client_metrics).values(bounced_mtd=0)
    with engine.begin() as connection:
        connection.execute(change.where(client_metrics.c.metric_date == YESTERDAY))
    assert status("date=2026-03-18") == 304, "a row of another date changed"
    with engine.begin() as connection:
        connection.execute(change.where(client_metrics.c.metric_date == TODAY))
    assert status("date=2026-03-18") == 200


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("form=2026-03-18", "There is no parameter 'form'; did you mean 'format'?."),
        ("from=2026-03-18&to=2026-03-17", "from=2026-03-18 is after to=2026-03-17."),
        ("date=2026-03-18&from=2026-03-18", "Give either date, or from and to."),
        ("date=18.3.2026", "date: write it as 2026-01-31."),
        ("date=1742256000", "date: write it as 2026-01-31."),
        ("date=2026-03-18&date=2026-03-17", "date is given 2 times."),
        ("columns=positive_replies", "There is no column 'positive_replies'; did you mean"),
        ("limit=0", "limit: Input should be greater than or equal to 1."),
        ("format=xlsx", "format: Input should be 'json', 'csv' or 'parquet'."),
        ("after=harbor", "after: "),
        ("after=harbor/2026-02-31", "after: take it from the `next` of the page before."),
    ],
)
def test_what_a_request_can_not_ask_for_is_named(api: httpx.Client, query: str, said: str) -> None:
    assert sentence(api, query).startswith(said)


@pytest.mark.parametrize("name", ["harbour", "%00", "%27%3B--"])
def test_an_unknown_client_is_named(api: httpx.Client, name: str) -> None:
    assert sentence(api, f"workspace={name}", 404).startswith("There is no client ")


def test_csv_is_what_the_command_exports(
    api: httpx.Client, engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer = api.get(f"{ROWS}?from=2026-03-01&format=csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["content-disposition"]
    file = exported(engine, monkeypatch, tmp_path / "rows.csv")
    assert list(csv.reader(io.StringIO(answer.text))) == list(
        csv.reader(io.StringIO(file.read_text("utf-8")))
    )


def test_no_name_is_a_formula_in_csv_and_numbers_stay_numbers() -> None:
    (text,) = csv_lines(["name", "a", "b"], [['=HYPERLINK("x")', -5, Decimal("-1.50")]])
    assert text.decode() == """name,a,b\n"'=HYPERLINK(""x"")",-5,-1.5\n"""


def test_a_slow_download_takes_no_connection_from_the_pages(
    api: httpx.Client, dashboard_site: Site
) -> None:
    answer = csv_answer(dashboard_site.downloads, RowFilter(), "tag", "rows")
    assert isinstance(answer, StreamingResponse)

    async def in_use() -> list[int]:
        parts = aiter(answer.body_iterator)
        await anext(parts)
        pools = (it.pool for it in (dashboard_site.downloads, dashboard_site.engine))
        found = [it.checkedout() for it in pools if isinstance(it, QueuePool)]
        # To its end: what is left behind keeps its connection.
        assert [it async for it in parts] == []
        return found

    assert anyio.run(in_use) == [1, 0]


def test_parquet_is_what_the_command_exports(
    api: httpx.Client, engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer = api.get(f"{ROWS}?from=2026-03-01&format=parquet")
    file = exported(engine, monkeypatch, tmp_path / "rows.parquet")
    ours = pd.read_parquet(io.BytesIO(answer.content))
    pd.testing.assert_frame_equal(ours, pd.read_parquet(file))
    assert len(ours) == 4


def exported(engine: Engine, monkeypatch: pytest.MonkeyPatch, file: Path) -> Path:
    url = engine.url.render_as_string(hide_password=False)
    monkeypatch.setenv("KPI_DATABASE_URL", url.replace("+psycopg", ""))
    monkeypatch.setenv("KPI_BISON_TIMEZONE", CHICAGO.key)
    form = export.Format(file.suffix[1:])
    export.export(date(2026, 3, 1), None, None, file, form, force=False)
    return file


def test_clients_are_listed_with_their_targets_and_without_their_keys(api: httpx.Client) -> None:
    answer = api.get("/api/clients?active=all")
    found = {it["workspace"]: it for it in answer.json()["clients"]}
    assert list(found) == ["harbor", "quay", "sloop"]
    assert found["harbor"]["monthly_kpi_target"] == 60
    assert found["harbor"]["monthly_sending_target"] == 4_000
    assert found["quay"]["monthly_kpi_target"] is None
    assert "7|" not in answer.text
    active = api.get("/api/clients").json()["clients"]
    assert [it["workspace"] for it in active] == ["harbor", "quay"]


def test_the_status_says_how_fresh_each_client_is(api: httpx.Client) -> None:
    status = api.get("/api/status").json()
    assert (status["date"], status["day_zone"]) == ("2026-03-18", "America/Chicago")
    harbor, quay = status["clients"]
    assert (harbor["workspace"], harbor["standing"]) == ("harbor", "on track")
    assert (quay["standing"], quay["severity"]) == ("no data", "WARN")
    assert quay["problems"] == ["it has no row yet"]
    assert status["fresh"] is False


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_changed(api: httpx.Client, method: str) -> None:
    assert api.request(method, ROWS).status_code == 405


@pytest.mark.thorough
def test_no_request_that_the_description_allows_or_forbids_ends_in_an_error_of_ours(
    api: httpx.Client,
) -> None:
    # Imported late: it takes a second in each process that collects this file.
    import schemathesis

    schema = schemathesis.openapi.from_dict(api.get("/api/openapi.json").json())
    operations = [schema[path]["GET"] for path in (ROWS, "/api/clients", "/api/status")]
    assert len(list(schema.get_all_operations())) == len(operations)

    def call(case: Any) -> None:
        answer = api.request(case.method, case.path, params=case.query)
        assert answer.status_code < 500, answer.text
        operation = schema[case.path][case.method]
        operation.validate_response(answer)

    positive = schemathesis.GenerationMode.POSITIVE
    examples = hypothesis_settings().max_examples // 2
    for operation in operations:
        # What has no parameter can't be called in a wrong way.
        for mode in list(schemathesis.GenerationMode) if operation.query else [positive]:
            cases = given(case=operation.as_strategy(generation_mode=mode))
            hypothesis_settings(max_examples=examples, deadline=None)(cases(call))()
