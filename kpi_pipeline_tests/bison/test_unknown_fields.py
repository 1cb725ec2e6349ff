"""Members that no document names: nothing is taken from them, and they are noticed."""

from collections.abc import Mapping

import httpx

from kpi_pipeline.bison import DailySeries, WorkspaceReader
from kpi_pipeline_tests.bison.support import (
    DAY,
    HARBOR,
    LIST,
    PLAN,
    SERIES,
    USERS,
    WORKSPACE_KEY,
    Script,
    answer,
    client_for,
    run,
    series,
    whoami,
)


async def one_day(reader: WorkspaceReader) -> DailySeries:
    return await reader.daily_series(DAY, DAY)


def noticed(*answers: httpx.Response) -> tuple[list[int], Mapping[tuple[str, str], int]]:
    """The emails sent by each of the answers, and what was noticed in all of them."""

    async def work() -> tuple[list[int], Mapping[tuple[str, str], int]]:
        async with client_for(Script(*answers)) as client:
            sent = []
            for _ in answers:
                reading = await client.read_as(HARBOR, WORKSPACE_KEY, one_day)
                sent.append(reading.value.days[DAY].sent)
            return sent, dict(client.unknown_fields)

    return run(work())


def test_documented_fields_are_not_reported() -> None:
    _, fields = noticed(answer(series(DAY, DAY)))
    assert fields == {}


def test_unknown_fields_are_counted_by_answer_and_change_no_number() -> None:
    plain = series(DAY, DAY)
    odd = [line | {"unit": "emails"} for line in plain]
    sent, fields = noticed(answer(plain), answer(odd), answer(odd, took="12 ms"))
    assert sent == [12, 12, 12]
    call = f"GET {SERIES}"
    assert fields == {(call, "data[].unit"): 2, (call, "took"): 1}


def test_a_line_under_an_unknown_label_is_reported() -> None:
    line = {"label": "Auto Replies", "dates": [[DAY.isoformat(), 99]]}
    sent, fields = noticed(answer([line, *series(DAY, DAY)]))
    assert sent == [12]
    assert fields == {(f"GET {SERIES}", "data[].label 'Auto Replies'"): 1}


def test_fields_deep_inside_and_in_lists_are_reported_by_their_path() -> None:
    user = whoami(7).json()["data"]
    user["team"] |= {"main": True, "color": "blue"}
    rows = [{"id": 7, "name": "A", "mood": 1}, {"id": 9, "name": "B", "mood": 2}]
    meta = {"current_page": 1, "last_page": 1, "total": 2, "took": 3}
    script = Script(
        answer(user), answer([{"emails_being_sent": 4, "pace": 2}]), answer(rows, meta=meta)
    )

    async def work() -> Mapping[tuple[str, str], int]:
        async with client_for(script) as client:
            await client.check_key(HARBOR, WORKSPACE_KEY)
            await client.read_as(HARBOR, WORKSPACE_KEY, lambda it: it.sending_plan("today"))
            await client.list_workspaces()
            return dict(client.unknown_fields)

    assert run(work()) == {
        (f"GET {USERS}", "data.team.color"): 1,
        (f"GET {PLAN}", "data[].pace"): 1,
        (f"GET {LIST}", "data[].mood"): 1,
        (f"GET {LIST}", "meta.took"): 1,
    }


def test_of_an_answer_with_endless_unknown_fields_only_a_part_is_reported() -> None:
    lines = series(DAY, DAY)
    lines[0] |= {f"field {n}": n for n in range(1000)}
    sent, fields = noticed(answer(lines))
    assert sent == [12]
    assert len(fields) == 20


def test_a_name_that_looks_like_a_key_is_masked() -> None:
    key = WORKSPACE_KEY.get_secret_value()
    _, fields = noticed(answer(series(DAY, DAY), **{key: 1}))
    assert list(fields) == [(f"GET {SERIES}", "***")]
