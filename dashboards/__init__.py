"""Grafana dashboards as code: `python -m dashboards` writes `dashboards/dist/*.json`.

    style ─► queries ─► panels ─► jobs, live_ops, spinner_health, capacity, exporter_health ─► __main__

`style` is how things look everywhere, `queries` the only place with metric names, `panels` the only one that knows what
grafanalib lacks, and each dashboard is a module that says what is asked and where on the page it stands.
"""
