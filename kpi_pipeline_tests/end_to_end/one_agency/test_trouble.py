"""Two clients in trouble: the others' rows land, theirs stay, and nothing secret gets out."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import create_engine, inspect, text

from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline.services.dagster_page import RunStatus
from kpi_pipeline_tests.end_to_end.agency import ASSETS, Agency

pytestmark = [pytest.mark.server, pytest.mark.long]


class Trouble:
    """A client whose key is rejected, and one whose workspace is gone, as long as it lasts."""

    def __init__(self, agency: Agency) -> None:
        keyed = [key for key in agency.grid if agency.own_key(key)]
        self.clients = keyed[3], keyed[17]
        self._agency = agency
        self._rejected, self._gone = (agency.ids[key] for key in self.clients)
        self._lasts = False

    def begin(self) -> None:
        self._lasts = True
        self._agency.control("POST", "keys/revoke", {"workspace_id": self._rejected})
        self._agency.control("DELETE", f"workspaces/{self._gone}")

    def mend(self) -> None:
        if not self._lasts:
            return
        self._lasts = False
        self._agency.control("POST", "keys/restore", {"workspace_id": self._rejected})
        self._agency.control("POST", f"workspaces/{self._gone}/restore")


@pytest.fixture
def trouble(agency: Agency) -> Iterator[Trouble]:
    trouble = Trouble(agency)
    yield trouble
    trouble.mend()


def test_two_clients_in_trouble_keep_their_rows_and_stop_no_other_until_they_are_mended(
    agency: Agency, trouble: Trouble
) -> None:
    dates = days_between(agency.today - timedelta(days=91), agency.today - timedelta(days=90))
    tags = block_tags(agency.grid, dates)
    assert agency.run(ASSETS, tags)[0] is RunStatus.SUCCESS
    before = {asset: agency.rows(asset) for asset in ASSETS}
    trouble.begin()

    status, run_id = agency.run(ASSETS, tags)

    assert status is RunStatus.FAILURE
    said = agency.failure_of(run_id)
    assert "2 of 26 clients failed" in said
    assert all(client in said for client in trouble.clients)
    assert said.count("kpi clients import") >= 2, "each is told what to do"
    after = {asset: agency.rows(asset) for asset in ASSETS}
    for asset in ASSETS:
        for key, row in after[asset].items():
            changed = row != before[asset][key]
            if key[0] in trouble.clients:
                assert not changed, (asset, key)
            elif key[1] in dates:
                assert changed, (asset, key)
    # Each of the two is asked for again alone, once; the healthy are not, and then it ends.
    agency.poll(lambda: agency.split_from(run_id) == ["FAILURE", "FAILURE"], "the split")
    assert {asset: agency.rows(asset) for asset in ASSETS} == after
    red = {asset: agency.failed_partitions(asset, dates) for asset in ASSETS}
    bad = {f"{day}|{key}" for day in dates for key in trouble.clients}
    assert red == dict.fromkeys(ASSETS, bad)

    trouble.mend()
    assert agency.backfill(sorted(red["client_metrics"])) == "COMPLETED_SUCCESS"

    assert [agency.failed_partitions(asset, dates) for asset in ASSETS] == [set(), set(), set()]


def test_no_secret_stands_in_dagsters_tables_the_page_or_the_logs_after_a_failed_run(
    agency: Agency, trouble: Trouble, capfd: pytest.CaptureFixture[str]
) -> None:
    trouble.begin()
    tags = block_tags(agency.grid, [agency.today - timedelta(days=1)])
    assert agency.run(["client_registry"], {})[0] is RunStatus.SUCCESS
    assert agency.run(ASSETS, tags)[0] is RunStatus.FAILURE

    places = {f"log {file.name}": file.read_bytes() for file in agency.log_files()}
    places["the page's configuration"] = agency.configuration_on_the_page().encode()
    places["the console"] = "".join(capfd.readouterr()).encode()
    engine = create_engine(agency.dagster_database())
    with engine.connect() as connection:
        for table in inspect(engine).get_table_names():
            rows = connection.execute(text(f'SELECT t::text FROM "{table}" t')).scalars()
            places[f"table {table}"] = "\n".join(rows).encode()
    engine.dispose()

    assert trouble.clients[0].encode() in places["table event_logs"], (
        "the search must be able to find"
    )
    assert b"Bearer" not in b"".join(places.values())
    found = {
        place
        for place, content in places.items()
        for secret in agency.secrets()
        if secret.encode() in content
    }
    assert found == set()
    assert len(agency.secrets()) == 23 + 3


def test_api_keys_stand_encrypted_in_the_kpi_database(agency: Agency) -> None:
    with agency.app.engine.connect() as connection:
        for table in inspect(agency.app.engine).get_table_names():
            rows = connection.execute(text(f'SELECT t::text FROM "{table}" t')).scalars()
            content = "\n".join(rows)
            # bytea reads as hex in text.
            for secret in agency.secrets():
                assert secret not in content
                assert secret.encode().hex() not in content
