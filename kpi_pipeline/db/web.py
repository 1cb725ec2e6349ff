"""Users of the web pages, their sessions, and their API tokens.

Of a session's or program's token its hash alone is stored. A user's sessions end, by the same
statement or transaction, when the user is removed or gets another password or role.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, exists, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from kpi_pipeline.db.tables import web_api_tokens, web_sessions, web_users
from kpi_pipeline.errors import KpiError

# How often the last use of a token is written.
_USE_NOTED_EVERY = timedelta(minutes=1)

_users, _sessions, _tokens = web_users.c, web_sessions.c, web_api_tokens.c


@dataclass(frozen=True)
class User:
    """A person who may log in. One without a password comes by a proxy alone."""

    name: str
    role: str
    has_password: bool
    created_at: datetime
    tokens: int


@dataclass(frozen=True)
class Token:
    """An API token of a user; `label` says what it is for."""

    user: str
    label: str
    created_at: datetime
    last_used_at: datetime | None


@dataclass(frozen=True)
class Session:
    """A login that has not ended.

    `user` is None for a password of the settings, of which `password_digest` says which one, and
    for our own commands, which have none.
    """

    user: str | None
    role: str
    password_digest: str | None


def has_users(connection: Connection) -> bool:
    """Whether anybody may log in with a name."""
    return bool(connection.scalar(select(exists().select_from(web_users))))


def list_users(connection: Connection) -> list[User]:
    """All users, by name."""
    tokens = select(func.count()).where(_tokens.user_name == _users.name).scalar_subquery()
    rows = connection.execute(
        select(
            _users.name,
            _users.role,
            _users.password_hash.is_not(None).label("has_password"),
            _users.created_at,
            tokens.label("tokens"),
        ).order_by(_users.name)
    )
    return [User(**row) for row in rows.mappings()]


def add_user(connection: Connection, name: str, role: str, password_hash: str | None) -> None:
    """Add a user.

    Raises:
        KpiError: if there is one of this name.
    """
    try:
        connection.execute(
            insert(web_users).values(
                name=name, role=role, password_hash=password_hash, created_at=func.now()
            )
        )
    except IntegrityError:
        raise KpiError(
            f"There is a user {name} already: `kpi users password {name}` and `kpi users role "
            f"{name}` change them."
        ) from None


def set_password(connection: Connection, name: str, password_hash: str | None) -> None:
    """Replace a user's password, and end the user's sessions.

    Raises:
        KpiError: if there is no such user.
    """
    _change(connection, name, password_hash=password_hash)


def set_role(connection: Connection, name: str, role: str) -> None:
    """Give a user another role, and end the user's sessions.

    Raises:
        KpiError: if there is no such user.
    """
    _change(connection, name, role=role)


def _change(connection: Connection, name: str, **values: object) -> None:
    changed = connection.execute(
        update(web_users).where(_users.name == name).values(updated_at=func.now(), **values)
    )
    if not changed.rowcount:
        raise _no_user(name)
    connection.execute(delete(web_sessions).where(_sessions.user_name == name))


def remove_user(connection: Connection, name: str) -> None:
    """Remove a user with all sessions and tokens.

    Raises:
        KpiError: if there is no such user.
    """
    if not connection.execute(delete(web_users).where(_users.name == name)).rowcount:
        raise _no_user(name)


def read_user(connection: Connection, name: str) -> tuple[str, str | None] | None:
    """The role and the password's hash of a user, if there is one of this name."""
    row = connection.execute(
        select(_users.role, _users.password_hash).where(_users.name == name)
    ).first()
    return None if row is None else (row.role, row.password_hash)


def replace_hash(connection: Connection, name: str, old: str, new: str) -> None:
    """Store another hash of the same password; unless the password was changed meanwhile."""
    same = (_users.name == name) & (_users.password_hash == old)
    connection.execute(update(web_users).where(same).values(password_hash=new))


def add_token(connection: Connection, name: str, label: str, token_hash: str) -> None:
    """Store an API token of a user.

    Raises:
        KpiError: if there is no such user, or the user has a token of this label.
    """
    if read_user(connection, name) is None:
        raise _no_user(name)
    row = {"user_name": name, "label": label, "token_hash": token_hash}
    try:
        connection.execute(insert(web_api_tokens).values(**row, created_at=func.now()))
    except IntegrityError:
        raise KpiError(
            f"{name} has a token {label!r} already. Give the new one another label, or revoke the "
            f"old one: `kpi users revoke {name} --label {label!r}`."
        ) from None


def list_tokens(connection: Connection, name: str | None = None) -> list[Token]:
    """The API tokens of a user, or all, by user and label."""
    columns = (_tokens.user_name, _tokens.label, _tokens.created_at, _tokens.last_used_at)
    statement = select(*columns).order_by(_tokens.user_name, _tokens.label)
    if name is not None:
        statement = statement.where(_tokens.user_name == name)
    return [Token(*row) for row in connection.execute(statement)]


def revoke_tokens(connection: Connection, name: str, label: str | None) -> Sequence[str]:
    """Delete the token of this label, or all of a user; the labels of those that were deleted."""
    statement = delete(web_api_tokens).where(_tokens.user_name == name).returning(_tokens.label)
    if label is not None:
        statement = statement.where(_tokens.label == label)
    return sorted(connection.scalars(statement))


def use_token(connection: Connection, token_hash: str) -> tuple[str, str] | None:
    """The name and role of a token's user, if it is one; its use is noted once a minute."""
    noted_before = or_(
        _tokens.last_used_at.is_(None), _tokens.last_used_at < func.now() - _USE_NOTED_EVERY
    )
    noted = (
        update(web_api_tokens)
        .where(_tokens.token_hash == token_hash, noted_before)
        .values(last_used_at=func.now())
        .cte("noted")
    )
    row = connection.execute(
        select(_users.name, _users.role)
        .join_from(web_users, web_api_tokens, _tokens.user_name == _users.name)
        .where(_tokens.token_hash == token_hash)
        .add_cte(noted)
    ).first()
    return None if row is None else (row.name, row.role)


def begin_session(
    connection: Connection,
    token_hash: str,
    session: Session,
    lasts: timedelta,
    verified_hash: str | None = None,
) -> bool:
    """Store a login, and delete those that have expired.

    False, if it is a user's, and `verified_hash` is not the hash of the user's password any more.
    """
    if session.user is not None:
        # Locked, so a change of the password comes before, or ends this session, too.
        same = (_users.name == session.user) & (_users.password_hash == verified_hash)
        locked = select(_users.name).where(same).with_for_update(read=True)
        if connection.execute(locked).first() is None:
            return False
    connection.execute(delete(web_sessions).where(_sessions.expires_at <= func.now()))
    connection.execute(
        insert(web_sessions).values(
            token_hash=token_hash,
            user_name=session.user,
            role=session.role,
            password_digest=session.password_digest,
            created_at=func.now(),
            expires_at=func.now() + lasts,
        )
    )
    return True


def read_session(connection: Connection, token_hash: str) -> Session | None:
    """The login of a token, with the user's role now; None if it has ended."""
    role = func.coalesce(_users.role, _sessions.role).label("role")
    row = connection.execute(
        select(_sessions.user_name.label("user"), role, _sessions.password_digest)
        .join_from(web_sessions, web_users, isouter=True)
        .where(_sessions.token_hash == token_hash, _sessions.expires_at > func.now())
    ).first()
    return None if row is None else Session(row.user, row.role, row.password_digest)


def end_session(connection: Connection, token_hash: str) -> None:
    """Delete a login, if it is stored."""
    connection.execute(delete(web_sessions).where(_sessions.token_hash == token_hash))


def _no_user(name: str) -> KpiError:
    return KpiError(f"There is no user {name}; `kpi users list` shows those that exist.")
