"""Third room after config: how we say what we know.

`catalogue` names every family and where its samples come from, `exposition` turns them into bytes, `own` holds the
exporter's metrics about itself. This room alone imports prometheus-client.
"""
