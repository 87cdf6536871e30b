"""Prometheus exporter for spinner runs.

The packages are the layers, in the order in which data flows; each imports only from those listed before it:

    config      what the operator configured         (file, environment, flags -> frozen structs)
    runtime     the client of the runtime's API      (HTTP -> snapshots)
    runs        the store                            (snapshots -> runs and counters; each run counted once)
    sync        reads what changed into the store    (runtime -> runs)
    metrics     the catalogue and the exposition     (runs and counters -> samples -> bytes)
    service     all runtimes of one config           (scrape -> sync -> page)
    web         the HTTP server                      (page -> response)

`cli` is the entry point, `doctor` checks a connection, `demo` starts the whole stack. `simulator` is the embedded
runtime; it imports nothing from the other packages, so that it can disagree with them. `errors` and `status` are shared
by all; `docs/architecture.md` explains the design.
"""

__version__ = "0.1.0"
