"""The settings of the web pages: Dagster's, and the KPI dashboard."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode

from kpi_pipeline.settings.web import (
    checked_header,
    checked_password,
    checked_prefix,
    host_of,
    parse_names,
    parse_proxies,
    reached_at,
)


@dataclass(frozen=True)
class Page:
    """Where one web page is: the address that it listens on, its path, and its further names.

    `setting` is the variable of the address.
    """

    title: str
    setting: str
    address: str
    port: int
    path_prefix: str
    names: tuple[str, ...]

    @property
    def local_url(self) -> str:
        """The URL of the page, as this machine reaches it."""
        return f"http://{reached_at(self.address)}:{self.port}{self.path_prefix}"


class PageSettings(BaseSettings):
    """Settings of one web page or of both; `Settings` has these among its own."""

    web_port: int = Field(
        default=3000, ge=0, le=65535, description="Port of Dagster's page; 0: any."
    )
    web_address: str = Field(
        default="127.0.0.1",
        description="Address on which Dagster's page listens; anything but this machine's own "
        "loopback needs a user (`kpi users add`) or KPI_WEB_PASSWORD.",
    )
    web_path_prefix: str = Field(
        default="",
        description="Path under which Dagster's page is published, such as `/dagster`, where a "
        "proxy has other pages beside it; unset: none.",
    )
    dagster_url: str | None = Field(
        default=None,
        description="Address of Dagster's page in alerts, as people reach it; unset: that of "
        "KPI_WEB_ADDRESS and KPI_WEB_PORT.",
    )
    dashboard_port: int = Field(
        default=3001, ge=0, le=65535, description="Port of the KPI dashboard; 0: any."
    )
    dashboard_address: str = Field(
        default="127.0.0.1",
        description="Address on which the dashboard listens; anything but this machine's own "
        "loopback needs a user (`kpi users add`) or KPI_WEB_PASSWORD.",
    )
    dashboard_path_prefix: str = Field(
        default="",
        description="Path under which the dashboard is published, such as `/kpis`, where a proxy "
        "has other pages beside it; unset: none.",
    )
    dashboard_url: str | None = Field(
        default=None,
        description="Address of the dashboard in links to it, as people reach it; unset: that "
        "of KPI_DASHBOARD_ADDRESS and KPI_DASHBOARD_PORT.",
    )
    web_password: SecretStr | None = Field(
        default=None,
        description="A password without a user's name for both pages, of 12 characters and more, "
        "with which people may change things; unset: users log in (`kpi users add`), and without "
        "any there is no login, and both pages listen on this machine alone.",
    )
    web_reader_password: SecretStr | None = Field(
        default=None,
        description="A second password for both pages, with which people may look and change "
        "nothing; unset: none.",
    )
    web_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Further names by which browsers may call both pages, separated by commas, "
        "beside localhost, 127.0.0.1, [::1], and for each page its address and the host of its "
        "URL (KPI_WEB_ADDRESS, KPI_DAGSTER_URL; KPI_DASHBOARD_ADDRESS, KPI_DASHBOARD_URL).",
    )
    web_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("127.0.0.1", "::1"),
        description="Addresses or networks of the proxies before both pages whose "
        "X-Forwarded-Proto, -For and KPI_WEB_USER_HEADER are believed, separated by commas; unset: "
        "this machine's. They may open any number of connections, to the gateway, too.",
    )
    web_user_header: str | None = Field(
        default=None,
        description="Header, such as X-Forwarded-User, in which a proxy that logs people in names "
        "the user to both pages; unset: none is believed.",
    )

    @property
    def dagster_page(self) -> Page:
        """Where Dagster's page is."""
        return Page(
            "Dagster's page",
            "KPI_WEB_ADDRESS",
            self.web_address,
            self.web_port,
            self.web_path_prefix,
            (*self.web_hosts, *host_of(self.dagster_url)),
        )

    @property
    def dashboard_page(self) -> Page:
        """Where the KPI dashboard is."""
        return Page(
            "The dashboard",
            "KPI_DASHBOARD_ADDRESS",
            self.dashboard_address,
            self.dashboard_port,
            self.dashboard_path_prefix,
            (*self.web_hosts, *host_of(self.dashboard_url)),
        )

    @property
    def page_url(self) -> str:
        """The address of Dagster's page, as people reach it."""
        return (self.dagster_url or self.local_page_url).rstrip("/")

    @property
    def local_page_url(self) -> str:
        """The address of Dagster's page, as this machine reaches it."""
        return self.dagster_page.local_url

    @field_validator("web_password", "web_reader_password")
    @classmethod
    def _fit_for_a_login(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None:
            return None
        checked_password(value.get_secret_value())
        if info.field_name == "web_reader_password" and "web_password" in info.data:
            other = info.data["web_password"]
            if other is None:
                raise ValueError("it needs KPI_WEB_PASSWORD, for the people who may change things")
            if other == value:
                raise ValueError("it must differ from KPI_WEB_PASSWORD")
        return value

    @field_validator("web_hosts", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        return parse_names(value) if isinstance(value, str) else value

    @field_validator("web_proxies", mode="before")
    @classmethod
    def _proxies(cls, value: object) -> object:
        return parse_proxies(value) if isinstance(value, str) else value

    @field_validator("web_path_prefix", "dashboard_path_prefix")
    @classmethod
    def _plain_path(cls, value: str) -> str:
        return checked_prefix(value)

    @field_validator("web_user_header")
    @classmethod
    def _plain_header(cls, value: str | None) -> str | None:
        return None if value is None else checked_header(value)
