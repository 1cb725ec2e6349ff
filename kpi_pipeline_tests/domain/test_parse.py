import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kpi_pipeline.domain.events.event import Event, EventStatus
from kpi_pipeline.domain.events.kinds import COUNTED, NOT_COUNTED
from kpi_pipeline_tests.domain.bodies import ARRIVED, content, parsed

LARGEST = 2**63 - 1
# Every member that can identify an event of a counted type, each with its own id.
EVERYTHING: dict[str, Any] = {
    "lead": {"id": 1},
    "campaign": {"id": 2},
    "reply": {"id": 3},
    "scheduled_email": {"id": 4},
    "campaign_event": {"id": 5},
}
BY_ALL = {
    "email_sent": ("sent", "scheduled_email.id=4"),
    "lead_replied": ("replied", "reply.id=3"),
    "lead_interested": ("interested", "lead.id=1 campaign.id=2"),
    "email_bounced": ("bounced", "scheduled_email.id=4"),
    "lead_unsubscribed": ("unsubscribed", "campaign_event.id=5"),
}


def body(*arguments: Any, **named: Any) -> bytes:
    return json.dumps(content(*arguments, **named)).encode()


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in EVERYTHING.items() if name not in names}


def stored_texts(event: Event) -> list[str]:
    """The values of text columns."""
    texts = (event.idempotency_key, event.reason, event.event_type, event.instance_url)
    return [it for it in texts if it is not None]


@pytest.mark.parametrize(("event_type", "expected"), BY_ALL.items())
def test_each_counted_type_raises_its_own_count_and_is_identified_by_its_own_ids(
    event_type: str, expected: tuple[str, str]
) -> None:
    metric, key = expected
    event = parsed(content(event_type, EVERYTHING))
    assert (event.status, event.metric, event.reason) == (EventStatus.RECEIVED, metric, None)
    assert (event.event_type, event.bison_workspace_id) == (event_type, 101)
    assert event.idempotency_key == f"main 101 {event_type} {key}"


def test_the_table_above_has_every_counted_type() -> None:
    assert set(BY_ALL) == set(COUNTED)


@pytest.mark.parametrize("event_type", BY_ALL)
def test_a_type_in_capitals_is_the_same_event_as_in_small_letters(event_type: str) -> None:
    small, capital, mixed = (
        parsed(content(spelt, EVERYTHING))
        for spelt in (event_type, event_type.upper(), f" {event_type.title()} ")
    )
    assert small.idempotency_key == capital.idempotency_key == mixed.idempotency_key
    assert small.metric == capital.metric == mixed.metric


@pytest.mark.parametrize(
    ("event_type", "missing", "key"),
    [
        ("lead_interested", ["campaign"], "reply.id=3"),
        ("lead_interested", ["lead"], "reply.id=3"),
        ("email_bounced", ["scheduled_email"], "reply.id=3"),
        ("lead_unsubscribed", ["campaign_event"], "scheduled_email.id=4"),
        ("lead_unsubscribed", ["campaign_event", "scheduled_email"], "lead.id=1 campaign.id=2"),
        (
            "lead_unsubscribed",
            ["campaign_event", "scheduled_email", "campaign", "reply"],
            "lead.id=1",
        ),
    ],
)
def test_an_event_that_lacks_its_first_ids_is_identified_by_the_next(
    event_type: str, missing: list[str], key: str
) -> None:
    event = parsed(content(event_type, without(*missing)))
    assert event.idempotency_key == f"main 101 {event_type} {key}"


@pytest.mark.parametrize(
    ("event_type", "missing"),
    [
        ("email_sent", ["scheduled_email"]),
        ("lead_replied", ["reply"]),
        ("lead_interested", ["lead", "reply"]),
        ("email_bounced", ["scheduled_email", "reply"]),
        ("lead_unsubscribed", ["campaign_event", "scheduled_email", "lead"]),
    ],
)
def test_an_event_without_an_identity_is_invalid_and_says_what_it_lacks(
    event_type: str, missing: list[str]
) -> None:
    event = parsed(content(event_type, without(*missing)))
    assert (event.status, event.metric) == (EventStatus.INVALID, None)
    for name in missing:
        assert f"data.{name}.id" in str(event.reason)
    # The row still has the workspace and the type.
    assert (event.event_type, event.bison_workspace_id) == (event_type, 101)


def test_the_instance_the_workspace_and_each_id_distinguish_events() -> None:
    one = content("lead_replied", {"reply": {"id": 3}})
    keys = {
        parsed(one).idempotency_key,
        parsed(one, instance="emea").idempotency_key,
        parsed(content("lead_replied", {"reply": {"id": 3}}, 102)).idempotency_key,
        parsed(content("lead_replied", {"reply": {"id": 4}})).idempotency_key,
        parsed(content("email_bounced", {"reply": {"id": 3}})).idempotency_key,
    }
    assert len(keys) == 5


def test_an_id_in_digits_is_the_same_as_the_number() -> None:
    as_number = parsed(content("lead_replied", {"reply": {"id": LARGEST}}, 101))
    as_digits = parsed(content("lead_replied", {"reply": {"id": str(LARGEST)}}, "101"))
    padded = parsed(content("lead_replied", {"reply": {"id": str(LARGEST)}}, "0101"))
    assert as_number.status is EventStatus.RECEIVED
    assert as_number.idempotency_key == as_digits.idempotency_key == padded.idempotency_key


NO_IDS = [
    True,
    0,
    -1,
    LARGEST + 1,
    10**400,
    str(LARGEST + 1),
    "0",
    "-1",
    "1.0",
    1.0,
    "",
    "٣",
    "1\n",
]


@pytest.mark.parametrize("value", [*NO_IDS, None, [1], {"id": 1}], ids=lambda it: repr(it)[:20])
def test_a_value_that_is_no_id_makes_an_event_invalid(value: object) -> None:
    of_reply = parsed(content("lead_replied", {"reply": {"id": value}}))
    of_workspace = parsed(content("lead_replied", {"reply": {"id": 3}}, value))
    for event in (of_reply, of_workspace):
        assert (event.status, event.metric) == (EventStatus.INVALID, None)
    assert of_workspace.bison_workspace_id is None
    assert "event.workspace_id" in str(of_workspace.reason)


def test_a_type_that_is_not_counted_is_kept_and_identified_by_its_whole_body() -> None:
    for event_type in (*NOT_COUNTED, "lead_teleported"):
        event, again = (parsed(body(event_type, {"a": 1})) for _ in range(2))
        other = parsed(body(event_type, {"a": 2}))
        assert (event.status, event.metric) == (EventStatus.IGNORED, None)
        assert event_type in str(event.reason)
        assert event.idempotency_key == again.idempotency_key != other.idempotency_key
        assert "sha256=" in event.idempotency_key
    assert "not known to this version" in str(parsed(content("lead_teleported")).reason)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_body_with_a_byte_order_mark_or_in_utf_16_is_read(encoding: str) -> None:
    text = json.dumps(content("lead_replied", {"reply": {"id": 3}}), ensure_ascii=False)
    event = parsed(text.encode(encoding))
    assert (event.status, event.metric) == (EventStatus.RECEIVED, "replied")
    assert event.idempotency_key == parsed(text.encode()).idempotency_key


def test_control_characters_in_a_reply_are_accepted() -> None:
    raw = b'{"event": {"type": "lead_replied", "workspace_id": 101}, "data": {"reply": {"id": 3, '
    event = parsed(raw + b'"text_body": "Hi\x00\x01\x0b\ttabs\r\nand lines\x1b[0m"}}}')
    assert (event.status, event.metric) == (EventStatus.RECEIVED, "replied")


DEEP = b'{"event": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
MALFORMED = {
    "nothing": b"",
    "no JSON": b"lead=7&token=hush",
    "cut off": body()[:-9],
    "two of them": body() + body(),
    "no UTF-8": body().replace(b"LEAD", b"\xff\xfehush"),
    "a list": b'[{"hush": 1}]',
    "a text": b'"hush"',
    "a number": b"4711",
    "null": b"null",
    "a number of 5,000 digits": b'{"event": ' + b"9" * 5000 + b"}",
    "nested too deep": DEEP,
    "no envelope": b'{"data": {"hush": 1}}',
    "an envelope that is a list": b'{"event": ["hush"]}',
    "no type": b'{"event": {"workspace_id": 101, "hush": 1}}',
    "a type of no text": b'{"event": {"workspace_id": 101, "type": ["hush"]}}',
    "a type with a NUL": body("lead_replied\x00hush"),
    "a type with half a character": body("lead_replied\ud800hush"),
    "a type of two words": body("lead hush"),
    "an endless type": body("hush" * 500),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_body_is_kept_as_it_came_with_a_reason_that_quotes_nothing_of_it(
    name: str,
) -> None:
    raw = MALFORMED[name]
    event, again = parsed(raw), parsed(raw)
    assert (event.status, event.metric, event.body) == (EventStatus.INVALID, None, raw)
    assert str(event.reason).startswith("The body can't be understood: ")
    for secret in ("hush", "4711", "999"):
        assert secret not in " ".join(stored_texts(event)).split("sha256=")[0]
        assert secret not in str(event.reason)
    assert event.idempotency_key == again.idempotency_key


def test_each_malformed_body_has_its_own_idempotency_key() -> None:
    assert len({parsed(raw).idempotency_key for raw in MALFORMED.values()}) == len(MALFORMED)


def test_text_that_postgresql_can_not_store_is_dropped() -> None:
    for url in (
        "https://mail\x00.example",
        "https://mail\ud800.example",
        "https://m\u00e4il.example",
    ):
        assert parsed(content(instance_url=url)).instance_url is None
    long = parsed(content(instance_url="https://mail.example/" + "x" * 900)).instance_url
    assert long is not None
    assert len(long) == 200
    no_urls: list[object] = [{}, 7, None, "", "   "]
    for value in no_urls:
        assert parsed(content(instance_url=value)).instance_url is None
    event = parsed(content(workspace_name="H\x00\ud800", name="\x00"))
    assert event.status is EventStatus.RECEIVED
    assert all("\x00" not in text and text.encode() for text in stored_texts(event))


def test_a_malformed_event_still_names_its_instance() -> None:
    event = parsed(content("lead_replied", {}, instance_url="https://mail.example"))
    assert (event.status, event.instance_url) == (EventStatus.INVALID, "https://mail.example")


_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
_MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        name: _JSON | st.fixed_dictionaries({}, optional={"id": _JSON, "type": _JSON, time: _JSON})
        for name, time in (
            *(("lead", "x"), ("campaign", "x"), ("reply", "date_received")),
            *(("scheduled_email", "sent_at"), ("campaign_event", "created_at")),
        )
    },
)
_ALMOST = st.builds(
    body,
    st.sampled_from([*COUNTED, *NOT_COUNTED]) | st.text(),
    _MEMBERS | _JSON,
    _JSON | st.just(1),
)


@given(st.binary() | _JSON.map(lambda it: body(data=it)) | _ALMOST)
@example(DEEP)
@example(b"\xef\xbb\xbf{}")
def test_no_body_raises(raw: bytes) -> None:
    event = parsed(raw)
    assert event.body == raw
    assert (event.metric is not None) == (event.status is EventStatus.RECEIVED)
    assert (event.reason is not None) == (event.status is not EventStatus.RECEIVED)
    assert event.happened_at is None or event.happened_at <= ARRIVED
    for text in stored_texts(event):
        assert "\x00" not in text
        assert text.encode()
