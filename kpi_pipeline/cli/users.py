"""`kpi users`: who may log in to the dashboard and to Dagster's page, and with which programs."""

import sys
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from kpi_pipeline.cli.common import err, local_time, opened_app, out, print_whole
from kpi_pipeline.db import web as stored
from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings.web import checked_password
from kpi_pipeline.web.passwords import hash_password, new_api_token, token_hash
from kpi_pipeline.web.visitor import RESERVED_NAMES, Role, is_user_name

commands = typer.Typer(
    help="Who may log in to the dashboard and to Dagster's page.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The user's name.")]
RoleOption = Annotated[
    Role, typer.Option("--role", help="viewer: may look; editor: may change things, too.")
]
FromInput = Annotated[
    bool,
    typer.Option("--password-stdin", help="Read the password from the first line of the input."),
]
NoPassword = Annotated[
    bool,
    typer.Option("--no-password", help="Let the user in through a proxy alone that names users."),
]


@commands.command()
def add(
    name: Name, role: RoleOption, password_stdin: FromInput = False, no_password: NoPassword = False
) -> None:
    """Add a user; running pages know it within five seconds.

    Asks for the password, of 12 characters and more, twice. Once there is a user, both pages ask
    for a login.
    """
    name = _checked(name)
    hashed = _hash(password_stdin, no_password)
    with opened_app(any_day_zone=True) as app:
        with app.engine.begin() as connection:
            stored.add_user(connection, name, role.value, hashed)
        how = "through the proxy" if hashed is None else "with the password"
        out.print(f"{name} may log in {how} as {role.value}.")
        if hashed is None and app.settings.web_user_header is None:
            out.print("Set KPI_WEB_USER_HEADER to the header in which the proxy names users.")


@commands.command("list")
def list_users() -> None:
    """Show all users."""
    with opened_app(any_day_zone=True) as app:
        with app.engine.connect() as connection:
            users = stored.list_users(connection)
        table = Table("User", "Role", "Login", "API tokens", "Added")
        for user in users:
            how = "password" if user.has_password else "proxy"
            added = local_time(user.created_at, app.timezone)
            table.add_row(user.name, user.role, how, str(user.tokens), added)
    if users:
        print_whole(table, out)
    else:
        out.print("There are no users: `kpi users add NAME --role editor` adds one.")


@commands.command()
def password(
    name: Name, password_stdin: FromInput = False, no_password: NoPassword = False
) -> None:
    """Give a user another password; the user's sessions end."""
    name = _checked(name)
    hashed = _hash(password_stdin, no_password)
    with opened_app(any_day_zone=True) as app, app.engine.begin() as connection:
        stored.set_password(connection, name, hashed)
    out.print(f"{name} has {'no' if hashed is None else 'another'} password; all sessions ended.")


@commands.command("role")
def change_role(
    name: Name,
    role: Annotated[Role, typer.Argument(metavar="ROLE", help="viewer or editor.")],
) -> None:
    """Give a user another role; the user's sessions end, and API tokens have the new role."""
    name = _checked(name)
    with opened_app(any_day_zone=True) as app, app.engine.begin() as connection:
        stored.set_role(connection, name, role.value)
    out.print(f"{name} is {role.value} now; all sessions ended.")


@commands.command()
def remove(name: Name) -> None:
    """Remove a user with all sessions and API tokens."""
    name = _checked(name)
    with opened_app(any_day_zone=True) as app:
        with app.engine.begin() as connection:
            stored.remove_user(connection, name)
            others = stored.has_users(connection)
        out.print(f"{name} is removed; all sessions and tokens ended.")
        if not others and app.settings.web_password is None:
            out.print(
                "That was the last user: pages that start from now on ask for no login, and listen "
                "on this machine alone.",
                soft_wrap=True,
            )


@commands.command()
def token(
    name: Name,
    label: Annotated[str, typer.Option("--label", metavar="TEXT", help="What the token is for.")],
) -> None:
    """Make an API token with which a program reads what the user may see; print it once.

    It is sent as `Authorization: Bearer TOKEN`, and changes nothing.
    """
    name = _checked(name)
    made = new_api_token()
    with opened_app(any_day_zone=True) as app, app.engine.begin() as connection:
        stored.add_token(connection, name, label, token_hash(made))
    err.print("This token is stored nowhere, and is not shown again:")
    out.print(made, soft_wrap=True)


@commands.command("tokens")
def list_tokens(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A user's name; unset: all.")
    ] = None,
) -> None:
    """Show the API tokens, and when each was last used; no token itself is stored."""
    with opened_app(any_day_zone=True) as app:
        with app.engine.connect() as connection:
            tokens = stored.list_tokens(connection, name)
        table = Table("User", "Label", "Made", "Last used")
        for it in tokens:
            moments = (local_time(at, app.timezone) for at in (it.created_at, it.last_used_at))
            table.add_row(it.user, escape(it.label), *moments)
    if tokens:
        print_whole(table, out)
    else:
        out.print("There are no API tokens: `kpi users token NAME --label TEXT` makes one.")


@commands.command()
def revoke(
    name: Name,
    label: Annotated[
        str | None, typer.Option("--label", metavar="TEXT", help="Of this token; unset: of all.")
    ] = None,
) -> None:
    """End an API token of a user, or all of them."""
    name = _checked(name)
    with opened_app(any_day_zone=True) as app, app.engine.begin() as connection:
        revoked = stored.revoke_tokens(connection, name, label)
    if not revoked:
        which = "no API token" if label is None else f"no API token {label!r}"
        raise KpiError(f"{name} has {which}; `kpi users tokens` shows those that exist.")
    out.print(f"Revoked {len(revoked)} of {name}'s API tokens.")


def _checked(name: str) -> str:
    """The name as it is stored."""
    name = name.strip().lower()
    if is_user_name(name):
        return name
    if name in RESERVED_NAMES:
        raise KpiError(f"The pages call others {name}: give the user another name.")
    raise KpiError(
        f"{name!r} is no name of a user: use up to 64 letters a-z, digits and . _ @ + -, the "
        "first a letter or a digit."
    )


def _hash(from_input: bool, none: bool) -> str | None:
    """The hash of the password that is asked for; None for a user without one."""
    if none and from_input:
        raise KpiError("--password-stdin and --no-password contradict each other: give one.")
    if none:
        return None
    if from_input:
        given = sys.stdin.readline().rstrip("\r\n")
    else:
        given = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    try:
        return hash_password(checked_password(given))
    except ValueError as error:
        raise KpiError(f"Choose another password: {error}.") from None
