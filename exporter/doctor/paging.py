"""Checks the paging of a list by its second page."""

import re

from exporter.config.api_description import Paging
from exporter.errors import ApiError
from exporter.runtime.client import RawResponse, RuntimeClient
from exporter.runtime.decoder import MALFORMED, Decoder
from exporter.runtime.layout import NullListError, RawPage
from exporter.runtime.model import RunSnapshot
from exporter.runtime.paging import PageInfo


async def second_page(
    client: RuntimeClient,
    decoder: Decoder,
    resource: str,
    run: RunSnapshot | None,
    first: RawResponse,
    page: RawPage,
    *,
    project_id: str,
) -> tuple[bool, str]:
    """Return whether the list can be read further, and what the second page shows about its paging."""
    info = PageInfo(page.count, page.cursor, first.link, page.total, page.more, page.pages)
    try:
        second = await client.second_page(resource, run, info, project_id=project_id)
        if second is None:
            return True, ""
        if isinstance(second, int):
            return True, f"; the second page is HTTP {second}, which ends the list"
        following = decoder.explain(resource, second.body).page
    except NullListError:
        return True, "; the second page is empty"
    except ApiError as error:
        return False, f"; the second page fails: {str(error).removeprefix(f'{resource}: ')}"
    except MALFORMED as error:
        return False, f"; the second page does not match its description: {error}"
    return _compare(client.paging(resource), page, following)


def _compare(paging: Paging, first: RawPage, second: RawPage) -> tuple[bool, str]:
    is_counted = paging.style in ("page", "offset")
    if not second.count:
        return True, "; the second page is empty"
    if first.items == second.items:
        ignored = f"; the second page repeats the first: the API ignores {paging.parameter or 'what selects it'}"
        is_whole = is_counted and first.count < paging.size
        return is_whole, ignored + (", or there is only one" if is_whole else "")
    finding = f", {second.count} in the second"
    if is_counted and first.count < paging.size:
        finding += f"; its pages have {first.count} items, not {paging.size} (paging.size)"
    return True, finding


def is_url(cursor: str | None) -> bool:
    """Whether what should be a cursor is the URL of the next page."""
    return cursor is not None and _URL.match(cursor) is not None


_URL = re.compile(r"https?://|/[^?\s]*\?")
