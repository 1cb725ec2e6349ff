"""Dagster's web server, over the GraphQL API that its own page uses."""

from collections.abc import Generator, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Any

import httpx
from pydantic import SecretStr
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.db.server.addresses import kpi_address
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.db.web import Session, begin_session
from kpi_pipeline.errors import KpiError
from kpi_pipeline.orchestration.runtime import LOCATION
from kpi_pipeline.settings import Settings
from kpi_pipeline.web.passwords import new_command_token, token_hash
from kpi_pipeline.web.visitor import SHARED_NAMES, Role

# Of a command: it begins another when it is over.
_SESSION_LASTS = timedelta(minutes=10)
_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on Error { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
_STATUS = """
query Status($run: ID!) {
  runOrError(runId: $run) { __typename ... on Run { status startTime endTime updateTime } }
}
"""


class PageSilentError(KpiError):
    """The page does not answer, or another server does."""


class PasswordNeededError(KpiError):
    """The page asks for a password, or for another one."""


class RunStatus(StrEnum):
    """The state of a run, as far as a waiting command needs it."""

    UNDER_WAY = "under way"
    SUCCESS = "success"
    FAILURE = "failure"


class DagsterPage:
    """A running webserver at `url`, which may ask for a login.

    It gets the password of the settings. Without one, where users log in, a short session is made
    in the KPI database: who can write to that may do everything.
    """

    def __init__(
        self, url: str, password: SecretStr | None = None, database: URL | None = None
    ) -> None:
        self.url = url
        self._auth: httpx.Auth | None = None
        if password is not None:
            name = SHARED_NAMES[Role.EDITOR]
            self._auth = httpx.BasicAuth(name, password.get_secret_value())
        elif database is not None:
            self._auth = _CommandSession(database)

    def answers(self) -> bool:
        """Whether the page is ready to be used."""
        try:
            response = httpx.get(f"{self.url}/server_info", auth=self._auth, timeout=5)
        except httpx.TransportError:
            return False
        return response.status_code == httpx.codes.OK

    def query(
        self, text: str, variables: Mapping[str, object], *, timeout: float = 60
    ) -> dict[str, Any]:
        """The `data` of a GraphQL answer, which may take `timeout` seconds.

        Raises:
            PageSilentError: if the page does not answer, or another server does.
            PasswordNeededError: if it asks for a password.
            KpiError: if it rejects the query.
        """
        try:
            response = httpx.post(
                f"{self.url}/graphql",
                json={"query": text, "variables": variables},
                auth=self._auth,
                timeout=timeout,
            )
            if response.status_code == httpx.codes.UNAUTHORIZED:
                raise PasswordNeededError(
                    f"Dagster's page at {self.url} asks for a password. Set KPI_WEB_PASSWORD to "
                    "that of `kpi up`."
                )
            if response.status_code == httpx.codes.FORBIDDEN:
                raise KpiError(f"Dagster's page: {response.json()['errors'][0]['message']}")
            answer = response.raise_for_status().json()
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            raise self._silent(type(error).__name__) from None
        match answer:
            case {"errors": [{"message": reason}, *_]}:
                raise KpiError(f"Dagster rejected a query: {reason}")
            case {"data": dict(data)}:
                return data
            case _:
                raise self._silent("another server answers there")

    def _silent(self, reason: str) -> PageSilentError:
        return PageSilentError(
            f"Dagster's page at {self.url} does not answer ({reason}). Is `kpi up` running?"
        )

    def launch(
        self,
        assets: Sequence[str],
        tags: Mapping[str, str],
        checks: Sequence[tuple[str, str]] = (),
    ) -> str:
        """Start a run of `assets` and `checks` (asset, name); return its id.

        Raises:
            KpiError: with Dagster's reason, if it does not start.
        """
        params = {
            "selector": {
                "repositoryLocationName": LOCATION,
                "repositoryName": "__repository__",
                "jobName": "__ASSET_JOB",
                "assetSelection": [{"path": [asset]} for asset in assets],
                "assetCheckSelection": [
                    {"assetKey": {"path": [asset]}, "name": name} for asset, name in checks
                ],
            },
            "runConfigData": {},
            "executionMetadata": {
                "tags": [{"key": key, "value": value} for key, value in tags.items()]
            },
        }
        answer = self.query(_LAUNCH, {"params": params})["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            reason = answer.get("message") or answer.get("errors") or answer["__typename"]
            raise KpiError(f"Dagster did not start the run: {reason}")
        return str(answer["run"]["runId"])

    def status(self, run_id: str) -> RunStatus:
        """The state of the run."""
        status = self.query(_STATUS, {"run": run_id})["runOrError"].get("status")
        if status == "SUCCESS":
            return RunStatus.SUCCESS
        return RunStatus.FAILURE if status in ("FAILURE", "CANCELED") else RunStatus.UNDER_WAY

    def run_address(self, run_id: str) -> str:
        """The address of the page with the run's log."""
        return f"{self.url}/runs/{run_id}"


class _CommandSession(httpx.Auth):
    """Begins a session of a command's own once a page asks for a login."""

    def __init__(self, database: URL) -> None:
        self._url = database
        self._token: str | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the request, and a second time where it needs a new session."""
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            self._token = self._begin()
            request.headers["Authorization"] = f"Bearer {self._token}"
            yield request

    def _begin(self) -> str:
        token = new_command_token()
        session = Session(user=None, role=Role.EDITOR.value, password_digest=None)
        engine = open_engine(self._url, pool_size=1)
        try:
            with engine.begin() as connection:
                begin_session(connection, token_hash(token), session, _SESSION_LASTS)
        except DBAPIError:
            # The page says again that it needs a login.
            return ""
        finally:
            engine.dispose()
        return token


def page_of(settings: Settings, url: str | None = None) -> DagsterPage:
    """The page of this installation, as this machine reaches it, or at another `url`."""
    database = None if settings.database_url is None else kpi_address(settings)
    return DagsterPage(url or settings.local_page_url, settings.web_password, database)
