"""`kpi db grant-reader` and `kpi db revoke-reader`: roles that read the numbers, for BI tools."""

from typing import Annotated

import typer

from kpi_pipeline.cli.common import opened_app, out, print_warning
from kpi_pipeline.db.readers import READABLE, grant_reader, revoke_reader
from kpi_pipeline.errors import KpiError

_Role = Annotated[str, typer.Argument(metavar="ROLE", help="A role of the PostgreSQL server.")]


def grant(
    role: _Role,
    web_api: Annotated[
        bool,
        typer.Option(
            "--web-api", help="Also if the host's web API acts as this role for everybody."
        ),
    ] = False,
) -> None:
    """Let a role read the numbers, targets and labels: no API key, no event, no user, no writing.

    The role must exist. Upgrades give it what is new. Whatever else it may do is left as it is.
    """
    with opened_app() as app, app.engine.begin() as connection:
        reader = grant_reader(connection, role, also_web_api=web_api)
    out.print(
        f"{role} reads {len(READABLE)} tables and views in the schema {reader.schema}: "
        f"{', '.join(READABLE)}.",
        markup=False,
        soft_wrap=True,
    )
    if not reader.may_connect:
        print_warning(
            f"{role} may not connect to this database yet. As its owner: "
            f"GRANT CONNECT ON DATABASE {reader.database} TO {role};"
        )


def revoke(role: _Role) -> None:
    """Take back what `kpi db grant-reader` gave to a role."""
    with opened_app() as app, app.engine.begin() as connection:
        if not revoke_reader(connection, role):
            raise KpiError(f"{role} was no reader: `kpi db grant-reader` has not named it.")
    out.print(f"{role} reads nothing of this pipeline any more.", markup=False, soft_wrap=True)
