"""All state of one sandbox, and what changes it."""

from collections import defaultdict
from datetime import date, datetime
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from starlette.requests import Request

from bison_sandbox.calls import Bottleneck, CallLog, Latency
from bison_sandbox.deliveries import Deliveries
from bison_sandbox.event_bodies import event_body, feed_row
from bison_sandbox.faults import ActiveFault, Fault, Faults, MoveUser
from bison_sandbox.options import SandboxError, SandboxOptions
from bison_sandbox.requests import InvalidError
from bison_sandbox.webhooks import WebhookUrls
from bison_sandbox.world.agency import Profile, build_agency
from bison_sandbox.world.clock import Clock, Days
from bison_sandbox.world.events import Event, Events, Walk
from bison_sandbox.world.keys import AgencyUser, KeyRing
from bison_sandbox.world.live import Live
from bison_sandbox.world.made import MadeEvents
from bison_sandbox.world.numbers import Day, Numbers, Rules
from bison_sandbox.world.replies import Replies
from bison_sandbox.world.workspaces import Campaign, Workspace, Workspaces, campaigns_of


class Sandbox:
    """One local Email Bison; two with the same options start out equal.

    Raises SandboxError for a fault that names a workspace that does not exist.
    """

    def __init__(self, options: SandboxOptions) -> None:
        self.clock = Clock(ZoneInfo(options.timezone), options.today)
        agency = build_agency(
            options.seed, options.clients, self.clock.today(), options.first_workspace_id
        )
        self.seed = options.seed
        self.timezone = options.timezone
        self.variants = options.variants
        self.workspaces = Workspaces(agency)
        self.user = AgencyUser(agency[0].profile.workspace_id)
        self.numbers = Numbers(options.seed, self.days_of, self.rules)
        self.made = MadeEvents(options.seed, self.days_of, self.rules)
        self.replies = Replies(options.seed, self.numbers, self.made, self.days_of)
        self.events = Events(options.seed, self.numbers, self.made, self.replies, self.days_of)
        # By workspace and types of events.
        self.walks: defaultdict[tuple[int, tuple[str, ...]], Walk] = defaultdict(Walk)
        self.webhook_urls = WebhookUrls()
        self.deliveries = Deliveries(options.seed, lambda: self.variants)
        # The address at which callers reached the sandbox, for events that no call caused.
        self.url: str | None = None
        self._live = (
            Live(
                options.seed,
                options.live_pace,
                self.clock,
                self.workspaces.present,
                self.mark_interested,
                self.deliver_recorded,
            )
            if options.live
            else None
        )
        self.bottleneck = Bottleneck(options.calls_per_second, options.longest_queue)
        self.latency = Latency(options.latency, options.seed)
        self.calls = CallLog()
        self.keys = KeyRing(options.seed)
        self._restlessness = Random(f"{options.seed} user")  # noqa: S311 - a random walk, not a secret
        now = self.clock.now()
        self.master_key = self.keys.issue(None, "super-admin", now)
        with_own_key = {client.profile.workspace_id for client in agency if client.has_own_key}
        for workspace in self.workspaces.present():
            if workspace.id in with_own_key:
                workspace.own_key = self.keys.issue(workspace.id, "api-user", now)
        self.faults = Faults()
        for fault in options.faults:
            try:
                self.add_fault(fault)
            except InvalidError as error:
                raise SandboxError(str(error)) from error

    def start(self) -> None:
        """Start the background work; must be called from within the event loop."""
        if self._live is not None:
            self._live.start()

    async def stop(self) -> None:
        """Stop marking leads and sending deliveries."""
        if self._live is not None:
            await self._live.stop()
        await self.deliveries.stop()

    def days_of(self, profile: Profile) -> Days:
        """The days of a workspace, by the zone that bounds them."""
        zone = self.variants.zone_of(profile.workspace_id)
        return self.clock.days if zone is None else Days(zone)

    def add_fault(self, fault: Fault) -> ActiveFault:
        """Put a fault in force. Raises InvalidError for a workspace that does not exist."""
        if isinstance(fault, MoveUser) and self.workspaces.get(fault.to) is None:
            raise InvalidError({"to": [f"The selected to is invalid: no workspace is {fault.to}."]})
        return self.faults.add(fault)

    def rules(self) -> Rules:
        """The rules by which the instance counts."""
        return Rules(self.variants.leads_count_by, self.variants.revised_days)

    def series(self, workspace: Workspace, first: date, last: date) -> list[Day]:
        """The counts of each day of a period, as known now."""
        now = self.clock.now()
        drawn = self.numbers.series(workspace.profile, first, last, now)
        return self.made.added_to(drawn, workspace.profile, first, now)

    def campaigns_of(self, workspace: Workspace) -> list[Campaign]:
        """The campaigns of a workspace, the largest first."""
        sizes = self.variants.campaigns
        if sizes == "mixed":
            sizes = "many" if workspace.id == self.workspaces.largest_id else "few"
        return campaigns_of(self.seed, workspace.id, sizes)

    def body_of(self, workspace: Workspace, event: Event) -> dict[str, Any]:
        """The payload of an event, its type in upper case."""
        return event_body(
            self.seed,
            event,
            workspace.name,
            self.campaigns_of(workspace),
            self.days_of(workspace.profile).zone,
            self.variants,
            self.url,
        )

    def mark_interested(self, workspace: Workspace, *, deliver: bool = True) -> dict[str, Any]:
        """Mark one more lead of a workspace interested now; return the body of that event.

        The reply, of hours before, is an event of its own. With `deliver`, both are sent to the
        addresses that subscribe to them. Must be called from within the event loop.
        """
        *_, marking = (
            self._deliver(workspace, self.events.from_made(made), really=deliver)
            for made in self.made.mark(workspace.id, self.clock.now())
        )
        return marking

    def make_event(
        self, workspace: Workspace, event_type: str, *, deliver: bool = True
    ) -> dict[str, Any]:
        """Make an event of a counted type happen now; return its body."""
        if event_type == "lead_interested":
            return self.mark_interested(workspace, deliver=deliver)
        made = self.made.add(workspace.id, event_type, self.clock.now())
        return self._deliver(workspace, self.events.from_made(made), really=deliver)

    def deliver_recorded(self, since: datetime, until: datetime) -> None:
        """Deliver the events of the series that were recorded after `since` until `until`."""
        for workspace in self.workspaces.present():
            types = self.webhook_urls.types_of(workspace.id)
            found = self.events.newest_of_series(workspace.profile, types, since, until)
            for build in reversed(list(found)):
                self._deliver(workspace, build(), really=True)

    def _deliver(self, workspace: Workspace, event: Event, *, really: bool) -> dict[str, Any]:
        body = self.body_of(workspace, event)
        posted = feed_row(event, body) if self.variants.webhook_body == "row" else body
        for url in self.webhook_urls.subscribed(workspace.id, event.type) if really else ():
            self.deliveries.send(url, posted)
        return body

    def leave(self, workspace_id: int) -> None:
        """Move the user out of a deleted workspace, into the first existing one."""
        present = self.workspaces.present()
        if present:
            self.user.leave(workspace_id, instead=present[0].id)

    def maybe_move_user(self) -> None:
        """Move the user to another workspace, with the chance of the variant `restless_user`."""
        chance = self.variants.restless_user
        if not chance or self._restlessness.random() >= chance:
            return
        here = self.user.current_workspace_id
        others = [each.id for each in self.workspaces.present() if each.id != here]
        if others:
            self.user.switch(self._restlessness.choice(others))


def sandbox_of(request: Request) -> Sandbox:
    """The sandbox of a request."""
    sandbox: Sandbox = request.app.state.sandbox
    return sandbox
