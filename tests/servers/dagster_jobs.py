"""Jobs for a real Dagster, run by its own Python: `dagster_jobs.py JOB` executes one, `queue` queues one."""

import os
import sys
import time
from pathlib import Path

from dagster import DagsterInstance, DagsterRunStatus, job, op


@op
def write() -> int:
    return 1


@op
def send(text: int) -> int:
    raise RuntimeError("secret contact")


@op
def keep(sent: int) -> None: ...


@op
def wait(text: int) -> None:
    while not Path(os.environ["CONTINUE_FILE"]).exists():
        time.sleep(0.05)


@job
def reminders() -> None:
    keep(send(write()))


@job
def reports() -> None:
    wait(write())


if __name__ == "__main__":
    instance = DagsterInstance.get()
    if sys.argv[1] == "queue":
        made = instance.create_run_for_job(reports, status=DagsterRunStatus.NOT_STARTED)
        sys.stdout.write(made.run_id)
    else:
        {"reminders": reminders, "reports": reports}[sys.argv[1]].execute_in_process(
            instance=instance, raise_on_error=False
        )
