"""What the Prometheus operator makes of a ScrapeConfig, for tests without the operator."""

import re
from typing import Any


def scrape_config(spec: dict[str, Any], shard: int = 0) -> dict[str, Any]:
    """Return the scrape config of one shard, without its discovery.

    The operator writes camelCase keys as the snake_case keys of Prometheus, and replaces $(SHARD).
    """
    relabelings = [
        {re.sub("([A-Z])", r"_\1", key).lower(): value for key, value in each.items()} for each in spec["relabelings"]
    ]
    for each in relabelings:
        if "regex" in each:
            each["regex"] = each["regex"].replace("$(SHARD)", str(shard))
    return {"job_name": "projects", "relabel_configs": relabelings}
