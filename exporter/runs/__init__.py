"""Runs: what is known about them, and what is counted. Imports `config` and `runtime`.

`run` is one run, `pace` says which silence is suspicious, `spinner` counts each run once into its `counters`,
`spinners` limits the spinners of a project, `project` holds the runs of a project, `projects` all projects. `store` is
what `sync` writes to: it opens a `read` of a project, enforces `limits`, and composes `view` (what a page shows),
`watch` (what changed), `runtime_state` (worker service and plan) and `persistence` (what `state_file` saves). `clock`
is the runtime's time.
"""
