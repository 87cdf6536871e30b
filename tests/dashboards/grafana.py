"""Substitutes variables in queries as Grafana does. A fake, because tests have no Grafana server."""

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
    """Return a query with its variables substituted. A variable without a given value selects all values."""
    values = {"runtime": ALL, "project": ALL, "spinner": ALL, "status": ALL, "run": ALL, **BUILT_IN, **variables}

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        assert name in values, f"{expression} uses ${name}, which is not a variable"
        return values[name]

    return re.sub(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)", value, expression)
