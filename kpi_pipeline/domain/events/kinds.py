"""The types of event that Email Bison sends, and which count each raises.

Types, members and keys are from the vendor's documentation and from live observation. A body has
no id of the event itself, so the ids of what it is about identify it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """How the events of one type count.

    `metric` is the daily count that an event raises by one, a name of `columns.FACT_COUNTS`.
    `keys` are the members of `data` that tell two events apart: the first group that is complete.
    `recorded_as` are the values of `campaign_event.type` that mean this event (its own type does,
    too): only such a `campaign_event` has the time of the event. `happened_at` is another member
    with that time, if the type has one.
    """

    metric: str
    keys: tuple[tuple[str, ...], ...]
    recorded_as: frozenset[str]
    happened_at: str | None = None


COUNTED = {
    "email_sent": Kind(
        "sent", (("scheduled_email.id",),), frozenset({"sent"}), "scheduled_email.sent_at"
    ),
    "lead_replied": Kind(
        "replied", (("reply.id",),), frozenset({"reply", "replied"}), "reply.date_received"
    ),
    # A lead counts once in a campaign. `reply.date_received` is when the reply arrived, hours
    # before anybody marked it, so it is not the time at which the lead became interested.
    "lead_interested": Kind(
        "interested", (("lead.id", "campaign.id"), ("reply.id",)), frozenset({"interested"})
    ),
    "email_bounced": Kind(
        "bounced",
        (("scheduled_email.id",), ("reply.id",)),
        frozenset({"bounce", "bounced"}),
        "reply.date_received",
    ),
    # Some come with the lead alone.
    "lead_unsubscribed": Kind(
        "unsubscribed",
        (("campaign_event.id",), ("scheduled_email.id",), ("lead.id", "campaign.id"), ("lead.id",)),
        frozenset({"unsubscribe", "unsubscribed"}),
    ),
}

# Documented types that do not affect the numbers: stored, not counted.
NOT_COUNTED = frozenset(
    {
        "manual_email_sent",
        "lead_first_contacted",
        "email_opened",
        "untracked_reply_received",
        "email_account_added",
        "email_account_removed",
        "email_account_disconnected",
        "email_account_reconnected",
        "tag_attached",
        "tag_removed",
        "warmup_disabled_receiving_bounces",
        "warmup_disabled_causing_bounces",
        "email_send_failed",
        "manual_email_send_failed",
        "blacklisted_email_added",
        "blacklisted_email_removed",
        "blacklisted_domain_added",
        "blacklisted_domain_removed",
    }
)

# Email Bison's test events and samples are of this workspace, in whatever workspace they are sent.
# An instance can have a real workspace with that id, too.
SAMPLE_WORKSPACE = 1
# The leads, campaigns and mails of its samples have ids of one digit.
LARGEST_SAMPLE_ID = 9

TEST_MARKER = "kpi_test"
"""The parameter in a webhook's URL that makes what arrives there a test event: `…?kpi_test=NAME`.

NAME has 1 to 64 letters, digits, `-` and `_`. `key_of_test` finds the event.
"""


def key_of_test(instance: str, name: str) -> str:
    """The idempotency key of the test event with this NAME in its URL."""
    return f"{instance} test {name}"
