import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster import _loggers

from kpi_pipeline.orchestration.dagster_private import write_lines_of_runs
from kpi_pipeline.orchestration.runtime.daemon import WithoutIdleTicks
from kpi_pipeline.services.logs import append_to, logging_to, rotate
from kpi_pipeline.settings.logs import JsonLines
from kpi_pipeline_tests import PROJECT_ROOT

# What Dagster's daemon, its page and its code server do before they log.
_AS_DAGSTER = """
import logging
from kpi_pipeline.orchestration.dagster_private import keep_tracebacks
from kpi_pipeline.settings.logs import log_to_standard_error
keep_tracebacks()
log_to_standard_error("json", "kpi_pipeline")
from dagster._utils.log import configure_loggers
configure_loggers(formatter="json")
for name in ("dagster.daemon", "kpi_pipeline.sync"):
    try:
        1 / 0
    except ZeroDivisionError:
        logging.getLogger(name).exception("It failed for %s", "acme")
"""


def test_a_log_is_appended_to(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "gateway.log"
    for line in (b"of the run before\n", b"of this run\n"):
        with append_to(log) as output:
            output.write(line)
    assert log.read_text() == "of the run before\nof this run\n"
    assert log.stat().st_mode & 0o777 == 0o600
    assert log.parent.stat().st_mode & 0o777 == 0o700


def test_a_large_log_becomes_the_first_of_three_older_ones(tmp_path: Path) -> None:
    log = tmp_path / "page.log"
    with append_to(log) as output:
        # The child writes on to the file that it was given.
        for number in range(6):
            output.write(str(number).encode() * 20)
            output.flush()
            rotate(log, largest=10)
    assert {it.name: it.read_text() for it in tmp_path.iterdir()} == {
        "page.log": "",
        "page.log.1": "5" * 20,
        "page.log.2": "4" * 20,
        "page.log.3": "3" * 20,
    }
    assert {it.stat().st_mode & 0o777 for it in tmp_path.iterdir()} == {0o600}


def test_on_a_full_disk_no_older_log_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "page.log"
    log.write_text("large")
    log.with_name("page.log.1").write_text("older")

    def copy(_: Path, to: Path) -> None:
        to.write_text("a part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copy", copy)
    with pytest.raises(OSError, match="No space left"):
        rotate(log, largest=1)
    assert {it.name: it.read_text() for it in tmp_path.iterdir()} == {
        "page.log": "large",
        "page.log.1": "older",
    }


def test_a_small_log_and_one_that_is_not_there_are_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "page.log"
    rotate(log)
    log.write_text("small")
    rotate(log)
    assert [it.name for it in tmp_path.iterdir()] == ["page.log"]


def test_json_lines_hold_message_level_time_and_traceback() -> None:
    try:
        raise ValueError("a\nb")
    except ValueError:
        error = sys.exc_info()
    record = logging.LogRecord("kpi", logging.ERROR, "", 0, "Lark %s", ("Mill",), error)
    record.created = 0.0
    line = JsonLines().format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert found.pop("exception").endswith("ValueError: a\nb")
    assert found == {
        "event": "Lark Mill",
        "logger": "kpi",
        "level": "error",
        "timestamp": "1970-01-01T00:00:00+00:00",
    }


def test_what_the_supervisor_notes_is_in_its_file_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("kpi_pipeline.services.supervisor")
    with logging_to(tmp_path / "supervisor.log", "json"):
        log.error("The gateway ended")
    log.error("Nobody reads this")
    (line,) = (tmp_path / "supervisor.log").read_text().splitlines()
    assert json.loads(line)["event"] == "The gateway ended"


def test_dagsters_processes_and_ours_in_them_write_the_same_json_with_tracebacks() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _AS_DAGSTER],
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    (dagsters,) = map(json.loads, done.stdout.splitlines())
    (ours,) = map(json.loads, done.stderr.splitlines())
    assert dagsters.keys() == ours.keys()
    for line, name in ((dagsters, "dagster.daemon"), (ours, "kpi_pipeline.sync")):
        assert line["exception"].endswith("ZeroDivisionError: division by zero")
        assert (line["event"], line["logger"], line["level"]) == (
            "It failed for acme",
            name,
            "error",
        )


@dg.op
def invented(context: dg.OpExecutionContext) -> None:
    context.log.info("acme is in")
    context.log.debug("nobody asked")


def test_runs_write_json_too_without_the_steps_of_each_step_and_store_all_events(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # Restored after the test.
    monkeypatch.setattr(_loggers, "colored_console_logger", _loggers.colored_console_logger)
    write_lines_of_runs(JsonLines())
    settings = yaml.safe_load((PROJECT_ROOT / "dagster.yaml").read_text())["python_logs"]
    job = dg.GraphDefinition("invented_job", node_defs=[invented]).to_job()
    with dg.DagsterInstance.ephemeral(settings={"python_logs": settings}) as instance:
        run_id = job.execute_in_process(instance=instance).run_id
        stored = {it.dagster_event_type for it in instance.all_logs(run_id)}
    lines = [json.loads(it) for it in capfd.readouterr().err.splitlines()]
    messages = [it["event"].rpartition(" - ")[2] for it in lines]
    assert messages == ["acme is in"]
    assert {dg.DagsterEventType.STEP_OUTPUT, dg.DagsterEventType.RUN_SUCCESS} <= stored


@pytest.mark.parametrize(
    ("text", "level", "is_kept"),
    [
        ("Checking for new runs for sensor: alert_sensor", logging.INFO, False),
        ("Sensor alert_sensor skipped: nothing has changed.", logging.INFO, False),
        ("Completed launch of run 4711 for alert_sensor", logging.INFO, True),
        ("Sensor alert_sensor skipped its cursor", logging.ERROR, True),
    ],
)
def test_ticks_that_start_nothing_are_not_logged(text: str, level: int, is_kept: bool) -> None:
    record = logging.LogRecord("dagster.daemon.SensorDaemon", level, "", 0, text, (), None)
    assert WithoutIdleTicks().filter(record) is is_kept
