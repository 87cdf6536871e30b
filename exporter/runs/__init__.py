"""Second room after config: what we know of the runs, whichever way we came to know it.

`run` is one run, `spinner` counts each once into its `counters` and learns its `pace`, `project` has the runs of a
project, `store` all of it, `clock` the runtime's time, and `sync` asks the runtime what changed and puts it into the
store.
"""
