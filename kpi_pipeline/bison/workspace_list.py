"""Listing every workspace of an instance, page by page."""

from kpi_pipeline.bison import remedies
from kpi_pipeline.bison.answers import AnswerError, WorkspacePage, workspace_page
from kpi_pipeline.bison.calls import Access, Call, Caller
from kpi_pipeline.bison.errors import MalformedAnswer
from kpi_pipeline.bison.model import Workspace

LIST = Call("GET", "/api/workspaces/v1.1")


async def list_all(caller: Caller, access: Access) -> list[Workspace]:
    """The workspaces of all pages, each once.

    `meta` says where to stop, never a short page; an answer without `meta` is the whole list.

    Raises:
        MalformedAnswer: if a page is not the one asked for, or the pages hold fewer workspaces
            than their total: a list cut short would hide clients.
        BisonError: if a call fails.
    """
    found: dict[int, Workspace] = {}
    number = 1
    while True:
        page = await _page(caller, access, number)
        # A workspace made meanwhile shifts the rows, so one can stand on two pages.
        found |= {workspace.id: workspace for workspace in page.workspaces()}
        if page.meta is None or page.meta.current_page >= page.meta.last_page:
            break
        number += 1
    total = page.meta.total if page.meta else None
    if total is not None and len(found) < total:
        raise MalformedAnswer(
            access.client,
            str(LIST),
            f"listed {len(found)} of {total} workspaces",
            remedies.MALFORMED,
        )
    return list(found.values())


async def _page(caller: Caller, access: Access, number: int) -> WorkspacePage:
    def decode(body: object) -> WorkspacePage:
        page = workspace_page(body)
        if page.meta is not None and page.meta.current_page != number:
            raise AnswerError(f"answered with page {page.meta.current_page}, not {number}")
        return page

    call = Call(LIST.method, LIST.path, params={"page": number})
    return (await caller.call(call, access, decode)).value
