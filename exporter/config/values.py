"""Types of settings that YAML does not have: durations, secrets, regular expressions, addresses."""

import re
import unicodedata
import warnings
from urllib.parse import SplitResult, urlsplit


class Duration(float):
    """Seconds, written as Prometheus writes durations: `5s`, `1h30m`, `500ms`; `0.5s` is accepted too."""


class Secret:
    """A value that must not be printed; only `reveal()` returns it."""

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"


def parse_duration(text: str) -> Duration:
    """Return the seconds of a Prometheus duration; raises `ValueError` if it is invalid.

    >>> parse_duration("1h30m")
    5400.0
    """
    match = DURATION.fullmatch(text)
    if not text or match is None:
        raise ValueError(f"expected a duration such as 5s or 1h30m, got {text!r}")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in re.findall(r"([\d.]+)([a-z]+)", text))
    if seconds > MAX_DURATION:
        raise ValueError("expected a duration of at most 100y")
    if seconds < LEAST_DURATION and re.search("[1-9]", text):
        raise ValueError("expected a duration of at least 1ms, or 0s")
    return Duration(seconds)


MAX_DURATION = 100 * 365 * 86400
"""Seconds of a duration: times before the year 1 or after 9999 do not exist."""

LEAST_DURATION = 0.001
"""Seconds of a duration that is not zero: Prometheus has none that is shorter, and what is divided by it is finite."""


def is_header_name(text: str) -> bool:
    """Whether a text can be the name of an HTTP header (RFC 9110, section 5.1)."""
    return re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", text) is not None


def is_header_value(text: str) -> bool:
    """Whether a text can be the value of an HTTP header: printable ASCII, without spaces at its ends.

    A line break would begin another header. Other characters have no encoding that all servers agree on.
    """
    return text.isascii() and text.isprintable() and text == text.strip()


def split_url(text: str) -> SplitResult:
    """Split an absolute URL of any scheme; raises `ValueError`, without the URL, if it is not one.

    `urlsplit` alone drops line breaks and accepts spaces.
    """
    url = urlsplit(text)
    # Reading the port checks it, and encoding the host the length of its labels.
    if not _URL.fullmatch(text) or not text.isprintable() or not (url.hostname or "").encode("idna") or url.port == 0:
        raise ValueError("expected an absolute URL")
    return url


_URL = re.compile(r"(?:[^\x00-\x7f]|[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-])+")
"""The characters of RFC 3986, and those outside ASCII, which are encoded in a request."""


def split_address(address: str) -> tuple[str, int]:
    """Split `host:port`, `[::1]:port` or `:port` (all interfaces, host is empty); raises `ValueError`."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535 or " " in host:
        raise ValueError(f"expected host:port or :port, got {address!r}")
    return host, int(port)


def host_and_path(url: str) -> str:
    """Return the canonical spelling of a URL without its scheme.

    >>> host_and_path("HTTPS://Runtime.example.com:443/api/")
    'runtime.example.com/api'
    """
    return canonical_url(url).partition("://")[2]


def canonical_url(url: str) -> str:
    """Return the canonical spelling of a URL.

    >>> canonical_url("HTTPS://Runtime.example.com:443/api/")
    'https://runtime.example.com/api'
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    if parts.port is not None and parts.port != {"http": 80, "https": 443}.get(parts.scheme):
        host += f":{parts.port}"
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}"


def literal(pattern: re.Pattern[str]) -> str | None:
    """Return the only text that a pattern matches; None if it is not written as one.

    >>> literal(re.compile(r"Report \\(EU\\)"))
    'Report (EU)'
    """
    if not re.fullmatch(r"(?:[^\\.^$*+?{}\[\]|()]|\\[^0-9A-Za-z])+", pattern.pattern):
        return None
    return re.sub(r"\\(.)", r"\1", pattern.pattern, flags=re.DOTALL)


_UNITS = ("y", "w", "d", "h", "m", "s", "ms")
_SECONDS = {"y": 365 * 86400, "w": 7 * 86400, "d": 86400, "h": 3600, "m": 60, "s": 1, "ms": 0.001}
DURATION = re.compile("0|" + "".join(rf"(?:\d+(?:\.\d+)?{unit})?" for unit in _UNITS), re.ASCII)


def decode_value(kind: type, value: object) -> object:
    """Decode types that msgspec does not have: durations, patterns, secrets."""
    if kind is Duration:
        if not isinstance(value, str):
            raise ValueError(f"expected a duration such as 5s or 1h30m, got {value!r}")
        return parse_duration(value)
    if kind is Secret:
        return Secret(str(value))
    if kind == re.Pattern[str]:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError("expected a regular expression; put it in quotes")
        # As labels are: what looks the same is the same.
        return compile_pattern(unicodedata.normalize("NFC", str(value)))
    raise NotImplementedError(kind)


def compile_pattern(text: str) -> re.Pattern[str]:
    """Compile a pattern; raises `ValueError`."""
    try:
        with warnings.catch_warnings():
            # Python announces changes of its syntax on standard error.
            warnings.simplefilter("ignore")
            return re.compile(text)
    except RecursionError:
        raise ValueError("expected a regular expression that is not nested so deeply") from None
    except (re.error, OverflowError) as error:
        raise ValueError(f"expected a regular expression, got {text!r}: {error}") from None
