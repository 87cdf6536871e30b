"""The metrics layer: from what the exporter knows to the text of a page.

`catalogue` names every family and where its samples come from, `exposition` renders pages in one of the `formats`, and
`exporter_metrics` holds the metrics about the exporter itself. Only this layer imports prometheus-client.
"""
