"""Jobs for a real Dagster, run by its own Python: `dagster_jobs.py JOB` executes one, `queue` queues one."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from dagster import DagsterInstance, DagsterRunStatus, DynamicOut, DynamicOutput, job, op


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
    wait_for_file()


def wait_for_file() -> None:
    while not Path(os.environ["CONTINUE_FILE"]).exists():
        time.sleep(0.05)


@op(out=DynamicOut(int))
def contacts() -> Iterator[DynamicOutput[int]]:
    for number in range(3):
        yield DynamicOutput(number, mapping_key=str(number))


@op
def call(number: int) -> None:
    if number:
        wait_for_file()


@job
def calls() -> None:
    contacts().map(call)


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
        {"calls": calls, "reminders": reminders, "reports": reports}[sys.argv[1]].execute_in_process(
            instance=instance, raise_on_error=False
        )
