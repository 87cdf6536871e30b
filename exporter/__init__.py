"""Prometheus exporter for spinner runs.

The corridor, in the order in which data goes through it; a room imports from rooms before it, never after:

    config      what the operator asked for              (file, environment, flags -> Config)
    runtime     how a runtime is read                    (HTTP -> values)
    runs        what we know                             (values -> runs and tallies, each run counted once)
    metrics     how we say it                            (runs and tallies -> families -> bytes)
    web         who asks, and whether they may           (bytes -> HTTP)

`reader` puts the rooms from the client to the store together, for one runtime, and `probes` for single projects of
it; `service` has the readers of all runtimes and makes the page. `storage` keeps what a store knows over a restart.
`strict` reads what a person wrote, and `description` says how an API is laid out: config reads it, and runtime
follows it. `cli` is the door, `doctor` looks a connection over before it is relied on, and `demo` is the house with
everything switched on. `simulator` is the embedded runtime: it stands outside and imports nothing from here, so that
it can disagree with us.
"""

__version__ = "0.1.0"
