import asyncio
from collections.abc import Callable
from typing import TypeVar

from kpi_pipeline.bison.answers import AnswerError
from kpi_pipeline.bison.calls import Access, Answered, Call, Caller, malformed
from kpi_pipeline.bison.pages import Listed, RowT, every_row

T = TypeVar("T")


class Session:
    """Calls with one key, one after another: a master key never has two under way."""

    def __init__(self, caller: Caller, access: Access) -> None:
        self._caller = caller
        self._access = access
        self._one_at_a_time = asyncio.Lock()

    async def call(self, call: Call, decode: Callable[[object], T]) -> Answered[T]:
        """As `Caller.call`."""
        async with self._one_at_a_time:
            return await self._caller.call(call, self._access, decode)

    async def rows(
        self, listing: Call, shape: type[Listed[RowT]], *, prefer_cursor: bool = False
    ) -> list[RowT]:
        """Every row of a list, over all its pages: all of them, or an error.

        Raises:
            MalformedAnswer: if the pages make no whole list; see `every_row`.
            BisonError: if a call fails.
        """
        walk = every_row(self.call, listing, shape, prefer_cursor=prefer_cursor)
        try:
            return [row async for row in walk]
        except AnswerError as fault:
            raise malformed(self._access, listing, fault) from None
