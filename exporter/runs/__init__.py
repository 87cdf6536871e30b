"""Second room after config: what we know of the runs, whichever way we came to know it.

`run` is one run, `tally` what is counted per spinner, `project` the runs of a project with each counted once, `store`
all of it, `clock` the runtime's time, and `sync` asks the runtime what changed and puts it into the store.
"""
