"""Every link of every page: below the site's path, and it leads somewhere."""

import re
from collections import deque
from dataclasses import replace
from html import unescape
from urllib.parse import urldefrag, urljoin

from sqlalchemy import Engine

from kpi_pipeline.dashboard.app import create_app
from kpi_pipeline.dashboard.site import Site
from kpi_pipeline.db.registry.targets import Targets, set_targets
from kpi_pipeline_tests.dashboard.browsing import browsing
from kpi_pipeline_tests.dashboard.rows import (
    CHICAGO,
    MONTH,
    ONE_DAY,
    TODAY,
    put_clients,
    put_outcome,
    put_rows,
)

PREFIX = "/kpis"
_LINKS = re.compile(r'\s(href|src|action|data-live|data-hx-get)="([^"]*)"')
# Filters, orders and months of one page are alike.
_QUERIES_OF_A_PAGE = 4
_PAGES = {
    "", "compare", "year", "accuracy", "refresh", "clients/acme", "clients/acme/report",
    "clients/acme/fill", "clients/acme/targets", "clients/acme/targets/1/undo",
    "clients/acme/mute", "clients/acme/deactivate", "api/client-metrics",
}  # fmt: skip


def test_every_link_stays_below_the_path_of_the_site_and_leads_somewhere(
    dashboard_site: Site, engine: Engine
) -> None:
    put_clients(engine, "acme", "birch")
    put_rows(engine, "acme", [TODAY - number * ONE_DAY for number in range(40)])
    put_outcome(engine, "plausible", [{"workspace": "acme", "problem": "5 % bounced"}])
    with engine.begin() as connection:
        set_targets(connection, "acme", MONTH, Targets(50), changed_by="ann", zone=CHICAGO)
    settings = dashboard_site.settings.model_copy(update={"dashboard_path_prefix": PREFIX})
    site = replace(dashboard_site, settings=settings)
    waiting, seen = deque([f"{PREFIX}/"]), {f"{PREFIX}/"}
    queries: dict[str, int] = {}
    with browsing(create_app(site)) as browse:
        while waiting:
            address = waiting.popleft()
            path = address.partition("?")[0]
            queries[path] = queries.get(path, 0) + 1
            if queries[path] > _QUERIES_OF_A_PAGE:
                continue
            answer = browse.get(address)
            assert answer.status_code == 200, f"{address}: {answer.text[:200]}"
            if not answer.headers["content-type"].startswith("text/html"):
                continue
            for name, found in _LINKS.findall(answer.text):
                link = urldefrag(urljoin(address, unescape(found))).url
                if link.startswith(settings.page_url):
                    continue
                assert link.startswith(f"{PREFIX}/"), f"{address} leads to {found}"
                # The server of this test has no live pages, and POST is no link.
                if name in ("href", "src", "data-hx-get") and link not in seen:
                    seen.add(link)
                    waiting.append(link)
    assert {f"{PREFIX}/{it}" for it in _PAGES} <= queries.keys()
