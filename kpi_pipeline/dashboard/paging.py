"""Pages of long lists: a hundred clients each, with links that need no script."""

import re
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.requests import Request

PAGE_SIZE = 100


@dataclass(frozen=True)
class Paging:
    """The page `number` of `pages`, of a list with `total` members."""

    path: str
    kept: tuple[tuple[str, str], ...]
    number: int
    total: int

    @property
    def pages(self) -> int:
        """How many pages there are, at least one."""
        return max(1, -(-self.total // PAGE_SIZE))

    @property
    def shown(self) -> slice:
        """The members of this page."""
        return slice((self.number - 1) * PAGE_SIZE, self.number * PAGE_SIZE)

    @property
    def urls(self) -> list[tuple[int, str]]:
        """The number and the address of each page, without the prefix of the site."""
        return [
            (it, f"{self.path}?{urlencode([*self.kept, ('page', it)])}")
            for it in range(1, self.pages + 1)
        ]


def paging(request: Request, path: str, total: int) -> Paging:
    """The page that a request asks for; the last one for a number beyond it."""
    kept = tuple(it for it in request.query_params.multi_items() if it[0] != "page")
    text = request.query_params.get("page", "")
    number = int(text) if re.fullmatch(r"[0-9]{1,6}", text) else 1
    last = Paging(path, kept, 1, total).pages
    return Paging(path, kept, min(max(number, 1), last), total)
