"""`kpi clients thresholds` and `kpi clients export`."""

from pathlib import Path

import pytest
from sqlalchemy import URL, Engine

from kpi_pipeline.db.tables import clients
from kpi_pipeline_tests.cli.running import Kpi, cells, rows_of, written

HEADER = "instance,bison_workspace_id,name,active,monthly_kpi_target,api_key"
KEY = f"17|{'abcDEFghi123' * 4}"


@pytest.fixture(autouse=True)
def _two_clients(
    configured: URL, monkeypatch: pytest.MonkeyPatch, kpi: Kpi, tmp_path: Path
) -> None:
    monkeypatch.setenv("KPI_BISON_INSTANCES", "main http://127.0.0.1:9")
    rows = (f"main,101,Heron Tide,yes,60,{KEY}", "main,102,Lark :cat: Mill,no,,")
    kpi("clients", "import", written(tmp_path / "clients.csv", HEADER, *rows)).answer()


def test_thresholds_are_shown_with_the_defaults_and_changed_for_one_client(kpi: Kpi) -> None:
    screen = kpi("clients", "thresholds").answer()
    for name in ("heron-tide", "lark-cat-mill"):
        assert cells(screen, name) == [name, "15 % (default)", "0.3 % (default)"]
    words = ("--max-sending-shortfall", "30", "--min-reply-rate", "0,25 %")
    screen = kpi("clients", "thresholds", "heron-tide", *words).answer()
    assert cells(screen, "heron-tide") == ["heron-tide", "30 %", "0.25 %"]
    assert "lark-cat-mill" not in screen
    changed = kpi("clients", "thresholds", "heron-tide", "--min-reply-rate", "default").answer()
    assert cells(changed, "heron-tide") == ["heron-tide", "30 %", "0.3 % (default)"]
    assert kpi("clients", "thresholds", "heron-tide").answer() == changed


def test_a_threshold_of_no_client_an_unknown_client_or_no_number_changes_nothing(
    kpi: Kpi, engine: Engine
) -> None:
    before = rows_of(engine, clients)
    assert "Name the client" in kpi("clients", "thresholds", "--min-reply-rate", "1").error()
    unknown = kpi("clients", "thresholds", "heronn", "--min-reply-rate", "1").error()
    assert unknown == "There is no client heronn. `kpi clients list` shows the workspace keys."
    wrong = kpi("clients", "thresholds", "heron-tide", "--min-reply-rate", "101")
    assert wrong.code == 2
    assert "no percentage from 0 to 100" in wrong.err
    assert rows_of(engine, clients) == before


def test_an_export_is_imported_again_without_a_change(kpi: Kpi, tmp_path: Path) -> None:
    kpi("clients", "thresholds", "heron-tide", "--max-sending-shortfall", "12.5").answer()
    text = kpi("clients", "export").answer()
    assert text.splitlines()[1:] == [
        "main,101,Heron Tide,,yes,60,,12.5,,",
        "main,102,Lark :cat: Mill,,no,,,,,",
    ]
    assert KEY not in text
    file = tmp_path / "again.csv"
    file.write_text(text, encoding="utf-8")
    assert "2 clients imported: 2 unchanged." in kpi("clients", "import", str(file)).answer()
