"""The code server of `kpi up`: what it has imported before a run begins, and what it serves."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from kpi_pipeline.orchestration.runtime import DEFINITIONS, LOCATION
from kpi_pipeline.services.servers import code_server
from kpi_pipeline_tests import PROJECT_ROOT
from kpi_pipeline_tests.orchestration.installation import Installation

# The tables of the run are filled, and the modules that it alone has imported are printed.
_A_RUN = """
import json, os, sys
import kpi_pipeline.orchestration.runtime.preload
before = set(sys.modules)
threads = len(os.listdir("/proc/self/task"))
read = []
sys.addaudithook(lambda event, args: event.startswith("os.") and read.append(str(args[:1])))
import dagster as dg
from kpi_pipeline.definitions import build_definitions
from kpi_pipeline.orchestration.partitions import add_workspaces
from kpi_pipeline.settings import load_settings
from kpi_pipeline.sync.scope import KpiAsset
with dg.DagsterInstance.local_temp(overrides={"telemetry": {"enabled": False}}) as instance:
    add_workspaces(instance, [sys.argv[2]])
    job = build_definitions(load_settings()).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey(step.value) for step in KpiAsset],
        partition_key="|".join(sys.argv[1:]),
        raise_on_error=False,
    )
print(json.dumps([result.success, threads, sorted(sys.modules.keys() - before), read]))
"""


@pytest.mark.server
def test_all_that_a_run_needs_is_imported_before_it_is_forked(
    installation: Installation,
) -> None:
    client = installation.workspaces[0]

    done = subprocess.run(
        [sys.executable, "-c", _A_RUN, installation.today.isoformat(), client],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert done.returncode == 0, done.stderr
    success, threads, new, read = json.loads(done.stdout.splitlines()[-1])
    assert success, done.stderr
    assert len(installation.agency.rows()) == 1
    assert threads == 1, "a process with threads must not be forked"
    # What this run needs for a SQLite instance in a folder, and what imports itself bit by bit.
    assert {name.split(".")[0] for name in new} <= {
        "anyio",
        "dagster",
        "importlib",
        "tzdata",
        "watchdog",
    }
    assert not any(name.startswith("kpi_pipeline") for name in new)
    assert not [path for path in read if "migrations" in path or "zoneinfo" in path]


@pytest.mark.server
@pytest.mark.long
def test_the_code_server_ends_on_sigterm_although_a_shell_had_it_ignore_ctrl_c(
    tmp_path: Path,
) -> None:
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path), "DAGSTER_DISABLE_TELEMETRY": "yes"}
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with code_server(environment, tmp_path / "logs") as (_, child), child:
            child.await_answer()
            os.kill(child.pid, signal.SIGTERM)
            _, left = psutil.wait_procs([psutil.Process(child.pid)], timeout=60)
            assert left == [], child.last_words()
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_workspace_file_names_what_the_code_server_serves() -> None:
    content = yaml.safe_load((PROJECT_ROOT / "workspace.yaml").read_text())
    module = {"module_name": DEFINITIONS, "location_name": LOCATION}
    assert content == {"load_from": [{"python_module": module}]}
