"""DAGs for a real Airflow, which its own Python loads. Tasks wait for files in the folder CONTINUE_FOLDER."""

import datetime
import os
import time
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseOperator, dag, task
from airflow.sdk.exceptions import AirflowSkipException

DAY = datetime.timedelta(days=1)


def is_there(name: str) -> bool:
    return (Path(os.environ["CONTINUE_FOLDER"]) / name).exists()


@dag(schedule=None, is_paused_upon_creation=False)
def broken() -> None:
    """One task fails, one is skipped, and one cannot run because of the first one."""

    @task
    def load() -> None:
        raise RuntimeError("secret contact")

    @task
    def archive() -> None:
        raise AirflowSkipException

    @task
    def report() -> None: ...

    load() >> report()
    archive()


@dag(schedule=None, is_paused_upon_creation=False)
def flaky() -> None:
    """A task fails and succeeds when it is tried again; then one fails that is tried again tomorrow."""

    @task(retries=1, retry_delay=datetime.timedelta(0))
    def call(**context: Any) -> None:
        if context["ti"].try_number == 1:
            raise RuntimeError("secret contact")

    @task(retries=1, retry_delay=DAY)
    def remind() -> None:
        raise RuntimeError("secret contact")

    call() >> remind()


@dag(schedule=None, is_paused_upon_creation=False)
def mailing() -> None:
    """Three mails are made of one task, of which one fails until it is repaired; later there are only two."""

    @task
    def addresses() -> list[int]:
        return [0, 1] if is_there("shorter") else [0, 1, 2]

    @task
    def mail(number: int) -> None:
        if number == 1 and not is_there("repaired"):
            raise RuntimeError("secret contact")

    mail.expand(number=addresses())


@dag(schedule=None, is_paused_upon_creation=False, max_active_runs=1)
def hanging() -> None:
    """A task hangs. A second run is queued meanwhile."""

    @task
    def wait() -> None:
        while not is_there("go"):
            time.sleep(0.1)

    @task
    def after() -> None: ...

    wait() >> after()


class Defer(BaseOperator):
    """Waits for something outside of Airflow, for which it takes no worker."""

    def execute(self, context: Any) -> None:
        self.defer(trigger=TimeDeltaTrigger(DAY), method_name="resume")

    def resume(self, context: Any, event: object = None) -> None: ...


@dag(schedule=None, is_paused_upon_creation=False)
def approval() -> None:
    """One task waits for a person and another one for something outside of Airflow."""
    ApprovalOperator(task_id="approve", subject="secret contact")
    Defer(task_id="delivery")


@dag(schedule=None, is_paused_upon_creation=True)
def paused() -> None:
    """No run of it starts."""

    @task
    def write() -> None: ...

    write()


for make in (broken, flaky, mailing, hanging, approval, paused):
    make()
