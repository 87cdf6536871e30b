"""Sync: reads from the runtime what changed and writes it to the store. Imports `config`, `runtime` and `runs`.

`runtime_sync` reads one runtime as a whole, `project_sync` one project of it, and `common_sync` the projects that one
list of all projects has; `run_list` has the lists while they are read. `project_list` holds the list of projects,
`failed_records` reads which records failed, `common_records` those of all runs from one list, `availability` knows
whether the runtime has such lists, `record_counter` counts records where runs carry no counts, `budget` limits
requests, `problems` logs what cannot be read, and `single_flight` lets overlapping scrapes share one sync.
"""
