from datetime import date, timedelta

import pytest

from kpi_pipeline_tests.bison_sandbox.running import (
    TODAY,
    WORKSPACES,
    Bison,
    Stage,
    bison_on,
    on_stage,
    options,
)

LABELS = [
    "Replied",
    "Total Opens",
    "Sent",
    "Unsubscribed",
    "Bounced",
    "Interested",
    "Unique Opens",
]
SUM_OF = {
    "emails_sent": "Sent",
    "opened": "Total Opens",
    "unique_opens_per_contact": "Unique Opens",
    "bounced": "Bounced",
    "unsubscribed": "Unsubscribed",
    "interested": "Interested",
}
STATS = f"{WORKSPACES}/stats"
SERIES = f"{WORKSPACES}/line-area-chart-stats"


def test_the_series_has_the_vendors_labels_in_the_vendors_order(bison: Bison) -> None:
    lines = bison.data(SERIES, start_date="2026-03-01", end_date="2026-03-20")
    assert [line["label"] for line in lines] == LABELS
    assert len({line["color"] for line in lines}) == 7
    for line in lines:
        assert line["dates"][0][0] == "2026-03-01"
        assert len(line["dates"]) == 20
        assert [count for _, count in line["dates"][-2:]] == [0, 0]
        assert all(type(count) is int for _, count in line["dates"])


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (TODAY, TODAY),
        (date(2026, 2, 1), date(2026, 2, 28)),
        (date(2024, 6, 1), TODAY + timedelta(days=3)),
    ],
)
def test_stats_are_the_sums_of_the_series(bison: Bison, first: date, last: date) -> None:
    for row in bison.with_key()[::6]:
        key = row["api_key"]
        stats = bison.data(STATS, key=key, start_date=str(first), end_date=str(last))
        series = bison.series(first, last, key=key)
        assert {name: stats[name] for name in SUM_OF} == {
            name: str(sum(series[label])) for name, label in SUM_OF.items()
        }


def test_replies_are_mails_in_the_series_and_people_in_the_totals(bison: Bison) -> None:
    first, last = date(2026, 2, 1), date(2026, 2, 28)
    fewer = overlapping = 0
    for row in bison.with_key()[:6]:
        key = row["api_key"]
        mails = sum(bison.series(first, last, key=key)["Replied"])

        def people(start: date, end: date, key: str = key) -> int:
            period = {"start_date": str(start), "end_date": str(end)}
            return int(bison.data(STATS, key=key, **period)["unique_replies_per_contact"])

        by_day = [people(first + timedelta(n), first + timedelta(n)) for n in range(28)]
        assert people(first, last) <= sum(by_day) <= mails
        fewer += mails - people(first, last)
        overlapping += sum(by_day) - people(first, last)
        shown = bison.control(
            "GET",
            "counts",
            workspace_id=row["bison_workspace_id"],
            start_date=str(first),
            end_date=str(last),
        )
        assert (shown["replied"], shown["people_replied"]) == (mails, people(first, last))
    assert fewer > overlapping > 0


def test_a_persons_two_mails_are_of_one_lead(bison: Bison) -> None:
    bison.variants(paging="whole")
    row = bison.with_key()[0]
    replies = bison.data("/api/replies", key=row["api_key"])
    senders = {reply["id"]: reply["from_email_address"] for reply in replies}
    again = [it for it in replies if it["id"] * 2 + 1 != it["lead_id"]]
    firsts = [(it["lead_id"] - 1) // 2 for it in again]
    assert len(again) > 2
    assert all(
        senders[it["id"]] == senders.get(n, senders[it["id"]])
        for it, n in zip(again, firsts, strict=True)
    )


def test_campaigns_and_mailboxes_have_their_share_of_the_series(bison: Bison) -> None:
    path, period = (
        "/api/campaign-events/stats",
        {"start_date": "2026-03-09", "end_date": "2026-03-12"},
    )
    whole = bison.data(SERIES, **period)
    assert bison.data(path, **period) == whole
    ids = [campaign["id"] for campaign in bison.data("/api/campaigns")]
    parts = [bison.data(path, campaign_ids=str(each), **period) for each in ids]
    for place, line in enumerate(whole):
        for day, (_, count) in enumerate(line["dates"]):
            assert count == sum(part[place]["dates"][day][1] for part in parts)
    every = [("campaign_ids[]", each) for each in ids]
    assert bison.call("GET", path, params=[*every, *period.items()]).json()["data"] == whole
    assert bison.data(path, sender_email_ids="1", **period)[2]["dates"][0][1] == 0
    assert bison.get(path, campaign_ids="x", **period).status_code == 422


def test_stats_hold_texts_with_percentages_that_fit(bison: Bison) -> None:
    stats = bison.data(STATS, start_date="2026-02-01", end_date="2026-02-28")
    assert len(stats) == 14
    assert all(type(value) is str for value in stats.values())
    sent, contacted = int(stats["emails_sent"]), int(stats["total_leads_contacted"])
    assert 0 < contacted < sent
    bounced = 100 * int(stats["bounced"]) / sent
    assert float(stats["bounced_percentage"]) == pytest.approx(bounced, abs=0.01)
    replies = 100 * int(stats["unique_replies_per_contact"]) / contacted
    shown = float(stats["unique_replies_per_contact_percentage"])
    assert shown == pytest.approx(replies, abs=0.01)


def test_stats_of_a_time_without_mail_are_zeros(bison: Bison) -> None:
    stats = bison.data(STATS, start_date="2020-01-01", end_date="2020-01-31")
    assert set(stats.values()) == {"0"}


@pytest.mark.parametrize("path", [STATS, SERIES])
@pytest.mark.parametrize(
    ("params", "fields"),
    [
        ({}, ["start_date", "end_date"]),
        ({"start_date": "2026-03-01"}, ["end_date"]),
        ({"end_date": "2026-03-01"}, ["start_date"]),
        ({"start_date": "2026-03-01", "end_date": "20260302"}, ["end_date"]),
        ({"start_date": "2026-02-30", "end_date": "2026-03-02"}, ["start_date"]),
        ({"start_date": "2026-03-02", "end_date": "2026-03-01"}, ["end_date"]),
    ],
)
def test_a_period_that_is_none_is_refused_by_field(
    bison: Bison, path: str, params: dict[str, str], fields: list[str]
) -> None:
    refused = bison.get(path, **params)
    assert refused.status_code == 422
    data = refused.json()["data"]
    assert data["success"] is False
    assert list(data["errors"]) == fields


def test_the_master_key_answers_with_the_current_workspaces_numbers(bison: Bison) -> None:
    first, last = date(2026, 1, 1), date(2026, 2, 28)
    seen = set()
    for row in bison.with_key()[:4]:
        bison.switch(int(row["bison_workspace_id"]))
        own = bison.series(first, last, key=row["api_key"])
        assert bison.series(first, last) == own
        seen.add(sum(own["Sent"]))
    assert len(seen) == 4


def test_two_sandboxes_with_one_seed_tell_the_same_and_with_another_seed_not(
    bison: Bison,
) -> None:
    first, last = date(2025, 1, 1), TODAY
    with on_stage() as another:
        with bison_on(another, options()) as same:
            assert same.clients() == bison.clients()
            assert same.master_key == bison.master_key
            assert same.series(first, last) == bison.series(first, last)
        with bison_on(another, options(seed=8)) as different:
            assert different.clients() != bison.clients()
            assert different.master_key != bison.master_key
            assert different.series(first, last) != bison.series(first, last)


def test_what_was_asked_before_changes_no_number(stage: Stage, bison: Bison) -> None:
    day = date(2026, 3, 10)
    whole = bison.series(date(2025, 1, 1), TODAY)
    with bison_on(stage, options()) as fresh:
        alone = fresh.series(day, day)
    offset = (day - date(2025, 1, 1)).days
    assert alone == {label: [counts[offset]] for label, counts in whole.items()}


def test_the_days_before_a_clients_start_are_zeros(bison: Bison) -> None:
    first = date(2024, 12, 2)
    begun = 0
    for row in bison.with_key():
        sent = bison.series(first, TODAY, key=row["api_key"])["Sent"]
        begun += sum(sent[:5]) > 0
        assert sum(sent) > 0
    assert 15 <= begun < 23


def test_today_grows_and_a_revised_day_settles_as_the_clock_moves(bison: Bison) -> None:
    bison.freeze("2026-03-18T00:00:00-05:00")
    assert set(map(sum, bison.series(TODAY, TODAY).values())) == {0}
    bison.freeze("2026-03-18T12:00:00-05:00")
    noon = bison.series(TODAY, TODAY)
    bison.freeze("2026-03-18T23:59:59-05:00")
    night = bison.series(TODAY, TODAY)
    assert 0 < noon["Sent"][0] < night["Sent"][0]
    bison.freeze("2026-03-19T00:00:00-05:00")
    closed = bison.series(TODAY, TODAY)
    assert closed["Sent"] == night["Sent"]
    bison.freeze("2026-03-25T12:00:00-05:00")
    settled = bison.series(TODAY, TODAY)
    assert settled["Sent"] == night["Sent"]
    assert settled["Bounced"] > closed["Bounced"]
    bison.freeze("2026-05-25T12:00:00-05:00")
    assert bison.series(TODAY, TODAY) == settled
