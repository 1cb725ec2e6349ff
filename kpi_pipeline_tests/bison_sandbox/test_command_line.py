"""Variants and faults as they are typed: `kpi sandbox --variant NAME=VALUE --fault 'KIND …'`."""

import os
import re
import subprocess
import sys
from typing import Literal, get_args, get_origin, get_type_hints

import httpx
import pytest

from bison_sandbox import (
    SandboxError,
    SandboxOptions,
    Variants,
    create_app,
    fault_from_words,
    variants_from_words,
)
from bison_sandbox.faults import KINDS
from bison_sandbox.variants import names
from kpi_pipeline.cli.sandbox import run

COMMAND = [sys.executable, "-m", "kpi_pipeline.cli.main", "sandbox", "--port", "0"]


def test_variants_are_read_as_the_kind_of_value_that_each_is() -> None:
    words = ["wrapped_401=false", "switch_seconds=2", "restless_user=0.5", "revised_days=3"]
    assert variants_from_words(words) == Variants(
        wrapped_401=False, switch_seconds=2, restless_user=0.5, revised_days=3
    )
    assert (
        variants_from_words(["empty_plan=400", "day_zone="])
        == Variants()
        == variants_from_words([])
    )
    assert variants_from_words(["counts=text", "counts=integers"]) == Variants(counts="integers")


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("counts=many", "'documented', 'text' or 'integers'"),
        ("counts", "'counts' is not NAME=VALUE"),
        ("sparkle=1", "Known are campaigns, control_characters,"),
        ("wrapped_401=no", "wrapped_401 field is invalid"),
        ("switch_seconds=soon", "switch_seconds field is invalid"),
        ("restless_user=nan", "restless_user field is invalid"),
        ("switch_seconds=inf", "switch_seconds field is invalid"),
        ("day_zone=Mars/Olympus", "Area/City"),
    ],
)
def test_a_wrong_variant_is_a_sentence_that_names_it(word: str, shown: str) -> None:
    with pytest.raises(SandboxError) as refused:
        variants_from_words([word])
    assert repr(word) in str(refused.value)
    assert shown in str(refused.value)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("cut", {"kind": "cut"}),
        (
            "status status=429 retry_after=false path=404 times=2",
            {"kind": "status", "status": 429, "retry_after": False, "path": "404", "times": 2},
        ),
        (
            "status status=429 retry_after='Wed, 18 Mar 2026 20:00:09 GMT' html=true",
            {
                "kind": "status",
                "status": 429,
                "retry_after": "Wed, 18 Mar 2026 20:00:09 GMT",
                "html": True,
            },
        ),
        ("success_false value='\"false\"'", {"kind": "success_false", "value": "false"}),
        ("success_false value=false", {"kind": "success_false", "value": False}),
        (
            "edit pointer=/data/0 'value={\"a\": [1]}'",
            {"kind": "edit", "pointer": "/data/0", "value": {"a": [1]}},
        ),
        ("edit pointer= value=text", {"kind": "edit", "pointer": "", "value": "text"}),
        ("slow seconds=0.5 key=master", {"kind": "slow", "seconds": 0.5, "key": "master"}),
        ("move_user to=14 when=after", {"kind": "move_user", "to": 14, "when": "after"}),
    ],
)
def test_a_fault_is_read_from_words(text: str, values: dict[str, object]) -> None:
    assert fault_from_words(text).as_json() == values


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "Allowed are status, success_false,"),
        ("sparkle", "Allowed are status, success_false,"),
        ("status", "The status field is required."),
        ("slow seconds", "'seconds' is not NAME=VALUE"),
        ("slow seconds=long", "The seconds field is invalid"),
        ("cut sparkle=1", "Known are after, key, method, path, times, workspace_id."),
        ("slow 'seconds=1", "quotes don't match"),
    ],
)
def test_a_wrong_fault_is_a_sentence_that_quotes_it(text: str, shown: str) -> None:
    with pytest.raises(SandboxError) as refused:
        fault_from_words(text)
    assert repr(text) in str(refused.value)
    assert shown in str(refused.value)


def test_a_fault_for_a_workspace_that_is_not_there_stops_the_start() -> None:
    options = SandboxOptions(faults=(fault_from_words("move_user to=999999"),))
    with pytest.raises(SandboxError, match="no workspace is 999999"):
        create_app(options)


def test_the_help_names_every_variant_and_every_kind_of_fault() -> None:
    hints = get_type_hints(run, include_extras=True)
    helps = [option.help for hint in hints.values() for option in getattr(hint, "__metadata__", ())]
    words = set(re.findall(r"\w+", " ".join(helps)))
    values = {
        value
        for hint in get_type_hints(Variants).values()
        for value in get_args(hint)
        if get_origin(hint) is Literal
    }
    options = {name for kind in KINDS.values() for name in kind.model_fields}
    assert {*names(), *values, *KINDS, *options} <= words
    assert len(values) == 40


@pytest.mark.server
def test_the_command_starts_a_sandbox_with_variants_faults_and_ids_of_choice() -> None:
    words = ["--clients", "3", "--latency", "0", "--first-workspace-id", "40"]
    words += ["--variant", "paging=whole", "--variant", "wrapped_401=false"]
    words += ["--fault", "status status=502 path=users html=true times=1", "--fault", "stall"]
    with subprocess.Popen(
        [*COMMAND, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[4]
            with httpx.Client(base_url=url) as http:
                master_key = http.get("/sandbox/setup").json()["master_key"]
                headers = {"Authorization": f"Bearer {master_key}"}
                assert http.get("/api/users", headers=headers).status_code == 502
                # A call that a fault holds up keeps no stopping sandbox alive.
                with pytest.raises(httpx.ReadTimeout):
                    http.get("/api/users", headers=headers, timeout=0.2)
                http.delete("/sandbox/faults")
                answer = http.get("/api/workspaces/v1.1", headers=headers)
                assert [row["id"] for row in answer.json()["data"]] == [40, 41, 42]
                assert list(answer.json()) == ["data"]
                assert http.get("/api/users").json() == {"message": "Unauthenticated."}
                http.post("/sandbox/faults", json={"kind": "stall"})
                with http.stream("GET", "/api/users", headers=headers):
                    process.terminate()
                    _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, errors) == (0, "")


@pytest.mark.server
def test_the_command_refuses_a_wrong_switch_in_a_sentence() -> None:
    done = subprocess.run(
        [*COMMAND, "--variant", "counts=many"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "Error: The sandbox can't read 'counts=many'. The selected counts is invalid. Allowed are "
        "'documented', 'text' or 'integers'.\n"
    )
