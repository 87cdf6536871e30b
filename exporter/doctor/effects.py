"""What the exporter needs of an API, and the effect of each field and resource that is missing."""

REQUIRED = {
    "health": ("runtime.status",),
    "projects": ("id", "name"),
    "jobs": ("id", "status", "spinnerName"),
    "records": ("id",),
    "usage": ("name", "used"),
}
"""Fields without which an item cannot be used."""

EFFECTS = {
    ("health", "status"): "none",
    ("jobs", "projectId"): "none: the project whose list it is in is used",
    ("records", "jobId"): "none, unless one list has the records of all runs",
    ("records", "projectId"): "none: the run whose id it has is looked for in all projects",
    ("jobs", "spinnerId"): "none, unless two spinners of a project have the same name: they would be one",
    ("jobs", "trigger"): "the label trigger is empty",
    ("jobs", "parentJobId"): "the label parent_run_id is empty",
    ("jobs", "parentRecordId"): "none, unless runs name the record that started them instead of its run",
    ("records", "startedAt"): "a record that begins while its run is silent is noticed only by its id",
    ("records", "attempts"): "that a record is tried again is not noticed while its run is silent",
    ("records", "step.name"): "records in flight and waiting records are named without their step",
    ("records", "step.index"): "records in flight and waiting records are named without the number of their step",
    ("records", "step.startedAt"): "that a record went on to its next step is noticed only by the step's name",
    ("records", "status"): "records cannot be counted, and failed ones cannot be selected from all records",
    ("jobs", "startedAt"): "no duration and no queue time",
    ("jobs", "endedAt"): "updatedAt is used, or the time at which the exporter first sees the end",
    ("jobs", "updatedAt"): "each read of a run counts as a change",
    ("jobs", "createdAt"): "startedAt is used, and there is no queue time",
    (
        "jobs",
        "lastProgressAt",
    ): "the exporter's own observations are used; after its restart an alert can be late by one stall threshold",
    ("jobs", "dueAt"): "a run is overdue when it takes much longer than usual",
    (
        "jobs",
        "waitingUntil",
    ): "a run that is to start later pages after 15 minutes if it counts as queued, and a wait that should be over "
    "opens a ticket after a day",
    ("jobs", "records.completed"): "no spinner_run_progress_ratio, and no stall detection without lastProgressAt; if "
    "records can be listed, set resources.counts: records",
    ("jobs", "records.total"): "no spinner_run_progress_ratio",
    ("jobs", "records.failed"): "no spinner_run_failed_records, and only completed records count as finished",
    ("jobs", "records.waiting"): "only the run's status shows that it waits for a person",
    (
        "jobs",
        "records.running",
    ): "a run that waits for a person can count as stalled, and the last records of a run get no additional time",
    ("jobs", "records.pending"): 'no spinner_run_records{state="pending"}',
    ("jobs", "failures"): "no spinner_run_failures: failures are not grouped by step and error code",
    ("health", "runtime.lastHeartbeatAt"): "a runtime that is down is noticed only when the API reports it",
    ("health", "runtime.workers"): "no spinner_runtime_workers",
    ("records", "failedStep.name"): "failed records are named without their step",
    ("records", "errorCode"): "failed records are named without their error code",
    ("records", "endedAt"): "the newest failed records cannot be selected",
    ("usage", "resetsAt"): "no forecast of when a meter reaches its limit",
    ("usage", "limit"): "the meter is shown as unlimited",
}
"""The effect when a field that is not required is missing."""

ABSENT_EFFECTS = {
    "health": "no spinner_runtime_up: only runs without progress show that the runtime is down",
    "projects": "all runs belong to one project",
    "job": "a run that no list contains any longer counts as deleted",
    "records": "failed records are not named",
    "usage": "no plan meters, and no alert before PLAN_LIMIT",
}
"""The effect when a deployment does not have a resource."""
