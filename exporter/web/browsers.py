"""What protects people who open the exporter's pages in a browser, and the exporter from pages that they visit."""

import base64
import hashlib
import ipaddress
import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers

HEADERS = {
    # No page is sniffed for another type, framed, cached, or used by another site. None loads or runs anything.
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""Headers of each response that does not have its own."""


def policy_for(page: str) -> str:
    """Return the content security policy of a page that contains its styles: it allows exactly these."""
    hashes = (hashlib.sha256(style.encode()).digest() for style in re.findall(r"<style>(.*?)</style>", page, re.DOTALL))
    sources = " ".join(f"'sha256-{base64.b64encode(each).decode()}'" for each in hashes)
    return f"{HEADERS['Content-Security-Policy']}; style-src {sources}"


def is_from_another_site(headers: Headers) -> bool:
    """Return whether a browser sent a request for a page that is not, or may not be, one of the exporter's.

    Programs send neither of these headers. A page of the same origin is only trusted if the origin is an address: of a
    name, the owner decides what it resolves to, also after the page was loaded (DNS rebinding).
    """
    sites, origins = headers.getlist("Sec-Fetch-Site"), headers.getlist("Origin")
    if not sites and not origins:
        return False
    host = headers.get("Host", "").lower()
    is_same = set(sites) <= {"same-origin", "none"} and all(_host_of(each) == host for each in origins)
    return not is_same or not _is_address(host)


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False
