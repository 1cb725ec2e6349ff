import csv
import errno
import io
import os
import sys
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pytest
from sqlalchemy import URL, Engine

from kpi_pipeline.cli import export
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline_tests.cli.running import Kpi, address
from kpi_pipeline_tests.db.stocked import AS_OF, imported, record, stock_metrics

FIRST, SECOND, THIRD = (date(2026, 3, day) for day in (16, 17, 18))
FORMULA = "=1+1"
# CSV has no types, so an apostrophe says that it is no formula.
AS_TEXT = "'=1+1"
SUMMARY = "3 rows of 2 clients, 2026-03-16 to 2026-03-18"


@pytest.fixture(autouse=True)
def _stocked(database: URL, engine: Engine, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KPI_DATABASE_URL", address(database))
    sloop = record(102, "Sloop", display_name=FORMULA, active=False)
    imported(engine, vault, record(101, "Brûlé, Café"), sloop)
    numbers = {"emails_sent_mtd": 141739, "mtd_leads_progress": Decimal("-17.65")}
    stock_metrics(engine, "brule-cafe", FIRST, positive_replies_mtd=0, **numbers)
    stock_metrics(engine, "brule-cafe", THIRD)
    stock_metrics(engine, "sloop", SECOND, positive_replies_mtd=7)


def rows_in(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), strict=True))


def files_in(folder: Path) -> list[str]:
    return sorted(it.name for it in folder.iterdir() if it.is_file())


def test_csv_goes_to_standard_output_and_what_is_not_known_is_empty(kpi: Kpi) -> None:
    result = kpi("export")
    rows = rows_in(result.answer())
    assert [(row["workspace"], row["metric_date"]) for row in rows] == [
        ("brule-cafe", "2026-03-16"),
        ("brule-cafe", "2026-03-18"),
        ("sloop", "2026-03-17"),
    ]
    first, unknown, sloop = rows
    assert (first["display_name"], sloop["display_name"]) == ("Brûlé, Café", AS_TEXT)
    assert (first["positive_replies_mtd"], unknown["positive_replies_mtd"]) == ("0", "")
    assert (first["emails_sent_mtd"], first["mtd_leads_progress"]) == ("141739", "-17.65")
    assert datetime.fromisoformat(first["as_of"]) == AS_OF
    assert result.err == f"{SUMMARY}.\n"


def test_dates_and_clients_can_be_chosen(kpi: Kpi) -> None:
    one_day = kpi("export", "--from", "2026-03-17", "--to", "2026-03-17")
    assert [row["workspace"] for row in rows_in(one_day.answer())] == ["sloop"]
    one_client = kpi("export", "--workspace", "brule-cafe")
    assert len(rows_in(one_client.answer())) == 2
    nothing = kpi("export", "--from", "2026-04-01")
    assert nothing.answer().splitlines()[0].startswith("workspace,display_name,metric_date,")
    assert (rows_in(nothing.out), nothing.err) == ([], "0 rows of 0 clients.\n")


@pytest.mark.parametrize("how", ["by its ending", "by the option"])
@pytest.mark.parametrize("form", ["csv", "parquet", "xlsx"])
def test_a_file_holds_the_same_rows_in_each_format(
    kpi: Kpi, tmp_path: Path, form: str, how: str
) -> None:
    file = tmp_path / (f"kpis.{form}" if how == "by its ending" else "kpis")
    words = () if how == "by its ending" else ("--format", form)
    result = kpi("export", "--out", str(file), *words)
    assert (result.answer(), result.err) == ("", f"{SUMMARY} written to {file}.\n")
    read: dict[str, Any] = {
        "csv": pd.read_csv,
        "parquet": pd.read_parquet,
        "xlsx": lambda path: pd.read_excel(path, engine="openpyxl"),
    }
    with file.open("rb") as opened:
        frame = read[form](opened)
    assert frame["workspace"].tolist() == ["brule-cafe", "brule-cafe", "sloop"]
    dates = pd.to_datetime(frame["metric_date"]).dt.date.tolist()
    assert dates == [FIRST, THIRD, SECOND]
    label = AS_TEXT if form == "csv" else FORMULA
    assert frame["display_name"].tolist() == ["Brûlé, Café", "Brûlé, Café", label]
    replies = frame["positive_replies_mtd"].astype("Int64")
    assert replies.isna().tolist() == [False, True, False]
    assert replies.dropna().tolist() == [0, 7]
    assert frame["mtd_leads_progress"].iloc[0] == -17.65
    moment = pd.Timestamp(AS_OF)
    # Excel has no time zones, and milliseconds at best.
    expected = moment.tz_localize(None).floor("ms") if form == "xlsx" else moment
    found = pd.to_datetime(frame["as_of"].iloc[0])
    assert found.floor("ms") == expected.floor("ms")
    assert (found.tzinfo is None) == (form == "xlsx")
    assert files_in(tmp_path) == [file.name]


def test_types_survive_in_parquet(kpi: Kpi, tmp_path: Path) -> None:
    file = tmp_path / "kpis.parquet"
    kpi("export", "--out", str(file)).answer()
    frame = pd.read_parquet(file)
    assert type(frame["metric_date"].iloc[0]) is date
    assert str(frame["positive_replies_mtd"].dtype) == "Int64"
    assert str(frame["as_of"].dtype) == "datetime64[us, UTC]"


def test_a_workbook_holds_dates_and_text_and_no_formula(kpi: Kpi, tmp_path: Path) -> None:
    file = tmp_path / "kpis.xlsx"
    kpi("export", "--out", str(file)).answer()
    book = openpyxl.load_workbook(file)
    assert book.sheetnames == ["client_metrics"]
    header, *rows = book["client_metrics"].iter_rows()
    names = [cell.value for cell in header]
    by_name = dict(zip(names, rows[2], strict=True))
    assert by_name["display_name"].value == FORMULA
    assert by_name["display_name"].data_type == "s"
    assert by_name["metric_date"].value == datetime(2026, 3, 17)  # noqa: DTZ001
    assert "h" not in by_name["metric_date"].number_format.lower()
    assert by_name["emails_sent_mtd"].value is None


def test_what_a_workbook_can_not_hold_is_left_out_of_a_name(
    kpi: Kpi, engine: Engine, vault: Vault, tmp_path: Path
) -> None:
    imported(engine, vault, record(101, "Brûlé\x0b\x1fCafé"))
    file = tmp_path / "kpis.xlsx"
    kpi("export", "--out", str(file)).answer()
    assert pd.read_excel(file)["display_name"].iloc[0] == "BrûléCafé"


def test_more_rows_than_a_sheet_holds_are_refused(
    kpi: Kpi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_SHEET_ROWS", 2)
    refused = kpi("export", "--out", str(tmp_path / "kpis.xlsx")).error()
    assert refused == (
        "A sheet of Excel holds 2 rows, and the export has 3. "
        "Choose fewer dates or clients, or csv or parquet."
    )
    assert files_in(tmp_path) == []


@pytest.mark.parametrize(("form", "writer"), [("parquet", "pyarrow"), ("xlsx", "openpyxl")])
def test_a_missing_writer_is_named_with_the_way_to_install_it(
    kpi: Kpi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, writer: str
) -> None:
    monkeypatch.setitem(sys.modules, writer, None)
    refused = kpi("export", "--out", str(tmp_path / f"kpis.{form}")).error()
    assert refused == f"Writing {form} needs {writer}: pip install 'kpi-pipeline[export]'."
    assert files_in(tmp_path) == []


def test_a_file_that_exists_stays_without_force(kpi: Kpi, tmp_path: Path) -> None:
    file = tmp_path / "kpis.csv"
    file.write_text("somebody's own", encoding="utf-8")
    file.chmod(0o640)
    refused = kpi("export", "--out", str(file)).error()
    assert refused == f"{file} exists. Replace it with --force, or name another file."
    assert file.read_text("utf-8") == "somebody's own"
    kpi("export", "--out", str(file), "--force").answer()
    assert len(rows_in(file.read_text("utf-8"))) == 3
    assert file.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("before", [None, "the last export"])
def test_a_file_that_can_not_be_written_whole_is_not_written_at_all(
    kpi: Kpi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    file = tmp_path / "kpis.csv"
    if before is not None:
        file.write_text(before, encoding="utf-8")

    def fill_the_disk(_frame: pd.DataFrame, path: Path, **_: object) -> None:
        path.write_text("workspace,metr", encoding="utf-8")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pd.DataFrame, "to_csv", fill_the_disk)
    refused = kpi("export", "--out", str(file), "--force").error()
    assert refused == f"{file} can't be written: No space left on device."
    assert files_in(tmp_path) == ([] if before is None else [file.name])
    assert before is None or file.read_text("utf-8") == before


def test_a_link_stays_a_link(kpi: Kpi, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    file, link = folder / "kpis.csv", tmp_path / "latest.csv"
    file.touch()
    link.symlink_to(file)
    kpi("export", "--out", str(link), "--force").answer()
    assert link.is_symlink()
    assert len(rows_in(file.read_text("utf-8"))) == 3


def test_what_can_not_work_is_refused_in_a_sentence(kpi: Kpi, tmp_path: Path) -> None:
    assert kpi("export", "-w", "nobody").error() == (
        "There is no client nobody. `kpi clients list` shows the workspaces."
    )
    assert kpi("export", "--from", "2026-03-18", "--to", "2026-03-17").error() == (
        "--from 2026-03-18 is after --to 2026-03-17."
    )
    assert kpi("export", "--format", "xlsx").error() == (
        "Name the file for the xlsx with --out, as in --out kpis.xlsx."
    )
    away = tmp_path / "away" / "kpis.csv"
    assert kpi("export", "--out", str(away)).error() == (
        f"There is no folder {away.parent} for kpis.csv."
    )
    for target in (str(tmp_path), "/dev/null"):
        refused = kpi("export", "--out", target, "--force").error()
        assert refused == f"{target} is not a file. Name another with --out."
