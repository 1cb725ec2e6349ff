"""What all tables share: metadata, and the columns that many of them have."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Column, DateTime, ForeignKey, MetaData, Text, func

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)


def moment(name: str, *, nullable: bool = False) -> Column[Any]:
    """A column with an instant."""
    return Column(name, DateTime(timezone=True), nullable=nullable)


def updated_at() -> Column[Any]:
    """The column with the time at which the row was last written."""
    return Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now())


def workspace_key() -> Column[Any]:
    """The column with the client, as a part of the primary key."""
    return Column("workspace", Text, ForeignKey("clients.workspace"), primary_key=True)


def one_of(column: str, values: Iterable[str]) -> str:
    """The SQL condition that a column has one of these values."""
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"
