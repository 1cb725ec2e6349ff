"""What all tables share: their metadata, and the columns that stand in many of them."""

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
    """An instant."""
    return Column(name, DateTime(timezone=True), nullable=nullable)


def updated_at() -> Column[Any]:
    """When the row was written last."""
    return Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now())


def workspace_key() -> Column[Any]:
    """The client, as a part of the primary key."""
    return Column("workspace", Text, ForeignKey("clients.workspace"), primary_key=True)


def one_of(column: str, values: Iterable[str]) -> str:
    """The condition that a column holds one of some words."""
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"
