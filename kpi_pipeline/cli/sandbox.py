"""`kpi sandbox`: a local Email Bison with invented clients."""

from datetime import datetime
from typing import Annotated

import typer

from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings import load_settings

# Written out here: importing the sandbox would load a web server before every command.
_VARIANTS = """How it answers; may be repeated. The default comes first.
counts: documented, text, integers;
empty_days: zeros, omitted, omitted_by_label;
labels: vendor_order, shuffled, one_missing, no_opens, one_unknown;
day_zone: nothing for the sandbox's own, a zone as Area/City, workspace;
leads_count_by: marking, reply, mail;
revised_days: 7, 0 to 7;
user_member: workspace, team, both, different;
wrapped_401: true, false;
retry_after: true, false;
empty_plan: 400, list, 404, 422, success_false;
campaigns: mixed, few, many;
paging: page, offer_cursor, cursor, whole, changing;
switch_seconds: 0 or more;
restless_user: 0 to 1;
control_characters: false, true;
extra_fields: false, true;
event_feed: filtered, unfiltered, missing;
event_casing: upper, lower, mixed;
event_instance_url: true, false;
lead_campaign_event: interested, replied;
webhook_body: payload, row;
delivery_seconds: 0 or more;
delivery_repeats: 0 to 1;
delivery_losses: 0 to 1;
delivery_timeout_seconds: 15, above 0;
delivery_retry_seconds: 2787, 0 or more."""
_FAULTS = """What goes wrong with certain calls, as 'KIND name=value …'; may be repeated. Kinds:
status (status, message, html, retry_after), success_false (value, message), empty, html, cut,
slow (seconds), stall (seconds), reset, edit (pointer, and value, remove or repeat),
move_user (to, when). Any kind: path, method, workspace_id, key, after, times."""


def run(
    port: Annotated[int, typer.Option(help="Port; 0: any free port.")] = 8025,
    clients: Annotated[int, typer.Option(min=1, help="How many workspaces.")] = 26,
    seed: Annotated[int, typer.Option(help="Each seed invents another agency.")] = 7,
    calls_per_second: Annotated[
        float, typer.Option(min=0, help="Shared by all calls; 0: no limit.")
    ] = 9.5,
    longest_queue: Annotated[
        float,
        typer.Option(min=0, help="Seconds that a call waits for that limit; beyond: 429."),
    ] = 35.0,
    latency: Annotated[
        float, typer.Option(min=0, help="Mean seconds that a call takes on top of that.")
    ] = 0.25,
    today: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"], metavar="DATE", help="The sandbox's today; unset: the real date."
        ),
    ] = None,
    first_workspace_id: Annotated[
        int | None, typer.Option(min=1, help="Number the workspaces from here on, without gaps.")
    ] = None,
    variant: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help=_VARIANTS)] = None,
    fault: Annotated[list[str] | None, typer.Option(metavar="FAULT", help=_FAULTS)] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Let positive replies arrive while it runs, and deliver the events."
        ),
    ] = False,
    live_pace: Annotated[
        float,
        typer.Option(
            help="How many times as many positive replies as in a real agency; above 1 at any "
            "hour, else mostly in business hours."
        ),
    ] = 1.0,
) -> None:
    """Run a local Email Bison with invented clients, over real HTTP.

    At its start it shows its address, its master key, and how to break it; so does its page /.
    """
    from bison_sandbox import (
        SandboxError,
        SandboxOptions,
        fault_from_words,
        serve,
        variants_from_words,
    )

    try:
        options = SandboxOptions(
            port=port,
            clients=clients,
            seed=seed,
            calls_per_second=calls_per_second,
            longest_queue=longest_queue,
            latency=latency,
            today=today.date() if today else None,
            timezone=load_settings().day_zone.key,
            first_workspace_id=first_workspace_id,
            variants=variants_from_words(variant or []),
            faults=tuple(fault_from_words(text) for text in fault or []),
            live=live,
            live_pace=live_pace,
        )
        serve(options)
    except SandboxError as error:
        raise KpiError(str(error)) from None
