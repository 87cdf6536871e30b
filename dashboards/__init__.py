"""Grafana dashboards as code: `python -m dashboards` writes `dashboards/dist/*.json`.

    style -> queries -> grafana -> panels -> runtimes -> jobs, live_ops, spinner_health, capacity, exporter_health
    -> __main__

`style` holds colours, units and statuses, `queries` all metric names, `grafana` corrects the JSON of grafanalib, and
`panels` the builders. `runtimes` is the table at the top of three dashboards. Each dashboard is a module that lists its
panels: id, title, description, position and queries.
"""
