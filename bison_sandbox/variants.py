"""Variants of the instance's behaviour, where public material leaves open which one is real."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from bison_sandbox.requests import VERBATIM, invalid_fields
from bison_sandbox.world.numbers import LONGEST_REVISION, LeadsCountBy

_WORKSPACE_ZONES = (
    "America/New_York",
    "America/Chicago",
    "America/Denver",
    "America/Los_Angeles",
    "Europe/London",
)


def _zone_name(name: str) -> str:
    if name not in ("", "workspace"):
        try:
            ZoneInfo(name)
        except (KeyError, OSError, ValueError) as error:
            raise PydanticCustomError(
                VERBATIM,
                "The selected day_zone is invalid. Allowed are '' (the sandbox's own), "
                "'workspace', and a time zone as Area/City, for example America/Chicago.",
            ) from error
    return name


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class Variants:
    """How the sandbox answers; the defaults follow the vendor's document.

    - `counts`: stats are texts, series and plans integers (`documented`), or all are of one kind.
    - `empty_days`: a day without events is a zero in the series, missing everywhere (`omitted`), or
      each label leaves out its own zero days (`omitted_by_label`).
    - `labels`: the lines of the series in the vendor's order, in another fixed one, without
      "Interested", without both lines of opens, or after an unknown line "Auto Replies".
    - `day_zone`: the zone that bounds a day: "" is the sandbox's, `workspace` one per workspace.
    - `leads_count_by`: which moment's day counts a lead: its `marking`, its `reply`, or the `mail`.
    - `revised_days`: until which age late replies and bounces revise a day; 0 is never.
    - `user_member`: how the user's answer calls its workspace: `workspace` as live, `team` as in an
      older document, `both`, or both with different workspaces.
    - `wrapped_401`: whether a 401 has the body of the other errors.
    - `retry_after`: whether a 429 has that header.
    - `empty_plan`: an empty sending plan is an error 400, 404 or 422, an empty list, or a 200 that
      carries the failure.
    - `campaigns`: the largest workspace has 24 and others up to five (`mixed`), all have up to five
      (`few`), or all have 20 to 40 (`many`).
    - `paging`: pages only, a cursor on request, a cursor only, all rows in one answer, or a change
      from pages to a cursor after the first answer.
    - `switch_seconds`: how long a switch of the master key takes to act.
    - `restless_user`: the chance, before each call with the master key, that its user switches to
      another workspace in the vendor's own pages.
    - `control_characters`: names and replies contain raw ones, which strict JSON forbids.
    - `extra_fields`: every object of an answer has undocumented fields.
    - `event_feed`: `GET /api/events` filters by type and day, ignores its filters, or is missing.
    - `event_casing`: the type of a delivered event is in upper case, in lower case, or random for
      each delivery (`mixed`).
    - `event_instance_url`: whether an event has the instance's address.
    - `lead_campaign_event`: whether the `campaign_event` of a lead is the marking or the reply.
    - `webhook_body`: a webhook posts the payload alone, or the feed's row around it.
    - `delivery_seconds`: mean delay of a delivery; the delays are random, so events overtake.
    - `delivery_repeats`: the share of deliveries that are made twice, independently.
    - `delivery_losses`: the share of deliveries that are lost without being sent.
    - `delivery_timeout_seconds`: how long a delivery waits for its answer.
    - `delivery_retry_seconds`: the wait before a failed delivery's first retry, doubled each time;
      with the default, five retries take 24 hours.

    Raises pydantic's ValidationError for any other value.
    """

    counts: Literal["documented", "text", "integers"] = "documented"
    empty_days: Literal["zeros", "omitted", "omitted_by_label"] = "zeros"
    labels: Literal["vendor_order", "shuffled", "one_missing", "no_opens", "one_unknown"] = (
        "vendor_order"
    )
    day_zone: Annotated[str, AfterValidator(_zone_name)] = ""
    leads_count_by: LeadsCountBy = "marking"
    revised_days: Annotated[int, Field(ge=0, le=LONGEST_REVISION)] = LONGEST_REVISION
    user_member: Literal["workspace", "team", "both", "different"] = "workspace"
    wrapped_401: bool = True
    retry_after: bool = True
    empty_plan: Literal["400", "list", "404", "422", "success_false"] = "400"
    campaigns: Literal["mixed", "few", "many"] = "mixed"
    paging: Literal["page", "offer_cursor", "cursor", "whole", "changing"] = "page"
    switch_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    restless_user: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    control_characters: bool = False
    extra_fields: bool = False
    event_feed: Literal["filtered", "unfiltered", "missing"] = "filtered"
    event_casing: Literal["upper", "lower", "mixed"] = "upper"
    event_instance_url: bool = True
    lead_campaign_event: Literal["interested", "replied"] = "interested"
    webhook_body: Literal["payload", "row"] = "payload"
    delivery_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    delivery_repeats: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    delivery_losses: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    delivery_timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 15.0
    delivery_retry_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2_787.0

    def changed(self, values: Mapping[str, object]) -> "Variants":
        """A copy with these values changed. Raises InvalidError if one of them is invalid."""
        try:
            return Variants(**{**asdict(self), **values})
        except ValidationError as error:
            raise invalid_fields(error, names()) from error

    def zone_of(self, workspace_id: int) -> ZoneInfo | None:
        """The zone that bounds a workspace's days; None for the sandbox's own zone."""
        if not self.day_zone:
            return None
        return (
            workspace_zone(workspace_id)
            if self.day_zone == "workspace"
            else ZoneInfo(self.day_zone)
        )


def workspace_zone(workspace_id: int) -> ZoneInfo:
    """The workspace's zone with `day_zone` `workspace`; its id determines it."""
    return ZoneInfo(_WORKSPACE_ZONES[workspace_id % len(_WORKSPACE_ZONES)])


def names() -> list[str]:
    """The names of all variants."""
    return [field.name for field in fields(Variants)]
