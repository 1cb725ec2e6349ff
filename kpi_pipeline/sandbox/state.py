from dataclasses import dataclass
from zoneinfo import ZoneInfo

from starlette.requests import Request

from kpi_pipeline.sandbox.calls import CallLog
from kpi_pipeline.sandbox.clock import Clock
from kpi_pipeline.sandbox.correspondence import Correspondence
from kpi_pipeline.sandbox.estate import build_estate
from kpi_pipeline.sandbox.keys import KeyRing
from kpi_pipeline.sandbox.limits import Bottleneck, Latency
from kpi_pipeline.sandbox.numbers import Numbers
from kpi_pipeline.sandbox.options import SandboxOptions
from kpi_pipeline.sandbox.webhook_urls import WebhookUrls
from kpi_pipeline.sandbox.workspaces import Workspaces


@dataclass
class AgencyUser:
    """The one user of the instance; its master key acts in the user's current workspace."""

    id: int
    name: str
    email: str
    current_workspace_id: int


class Sandbox:
    """Everything that one sandbox knows; two with the same options start out equal."""

    def __init__(self, options: SandboxOptions) -> None:
        self.clock = Clock(ZoneInfo(options.timezone), options.today)
        estate = build_estate(options.seed, options.clients, self.clock.today())
        self.seed = options.seed
        self.timezone = options.timezone
        self.workspaces = Workspaces(estate)
        self.user = AgencyUser(
            1, "Avery Quill", "avery@agency.example", estate[0].profile.workspace_id
        )
        self.numbers = Numbers(options.seed, self.clock)
        self.correspondence = Correspondence(options.seed, self.numbers, self.clock)
        self.webhook_urls = WebhookUrls()
        self.bottleneck = Bottleneck(options.calls_per_second)
        self.latency = Latency(options.latency, options.seed)
        self.calls = CallLog()
        self.keys = KeyRing(options.seed)
        now = self.clock.now()
        self.master_key = self.keys.issue(None, "super-admin", now)
        with_own_key = {client.profile.workspace_id for client in estate if client.has_own_key}
        for workspace in self.workspaces.present():
            if workspace.id in with_own_key:
                workspace.own_key = self.keys.issue(workspace.id, "api-user", now)

    def leave(self, workspace_id: int) -> None:
        """Take the user out of a workspace that is gone, into the first one that is left."""
        present = self.workspaces.present()
        if self.user.current_workspace_id == workspace_id and present:
            self.user.current_workspace_id = present[0].id


def sandbox_of(request: Request) -> Sandbox:
    """The sandbox that a request came to."""
    sandbox: Sandbox = request.app.state.sandbox
    return sandbox
