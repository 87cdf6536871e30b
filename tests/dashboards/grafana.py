"""What Grafana does to a query before Prometheus sees it. A fake: no Grafana server is to be had for a test."""

import re
from collections.abc import Mapping

BUILT_IN = {
    "__rate_interval": "20s",
    "__interval": "15s",
    "__range": "3600s",
    "__range_s": "3600",
    "__interval_ms": "15000",
}

ALL = ".*"


def interpolate(expression: str, variables: Mapping[str, str]) -> str:
    """Return a query with its variables filled in; what is not given stands for all values."""
    values = {"runtime": ALL, "project": ALL, "spinner": ALL, "status": ALL, "run": ALL, **BUILT_IN, **variables}

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        assert name in values, f"{expression} asks for ${name}, which is no variable"
        return values[name]

    return re.sub(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)", value, expression)
