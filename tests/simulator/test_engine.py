"""How the engine processes runs and their records."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from exporter.simulator import Engine, ManualTimeline, PlanLimitError, UnknownSpinnerError, load_scenario
from exporter.simulator.contacts import contacts
from tests.simulator.simulation import EMAIL, Simulation, scenario

ALWAYS_FAILS = {**EMAIL, "failures": {"MAILBOX_FULL": 1}}
ASK = {"name": "Ask", "type": "human_call", "wait": {"answer": "10m", "timeout": "20m"}}


async def test_a_run_is_queued_picked_up_processed_record_by_record_and_completed(tmp_path: Path) -> None:
    simulation = Simulation(scenario(tmp_path))
    job = simulation.engine.trigger("mail")
    assert (simulation.status(job), simulation.counts(job)) == ("queued", (10, 0, 0, 0, 0))
    await simulation.after(1)
    assert (simulation.status(job), simulation.counts(job)) == ("running", (9, 1, 0, 0, 0))
    await simulation.after(35)
    assert (simulation.status(job), simulation.counts(job)) == ("running", (6, 1, 0, 3, 0))
    assert simulation.engine.jobs[job].last_progress_at == 31
    await simulation.after(65)
    assert (simulation.status(job), simulation.counts(job)) == ("completed", (0, 0, 0, 10, 0))
    assert simulation.engine.jobs[job].ended_at == 101


async def test_a_run_fails_if_all_its_records_fail(tmp_path: Path) -> None:
    simulation = Simulation(scenario(tmp_path, spinner={"steps": [ALWAYS_FAILS]}))
    job = simulation.engine.trigger("mail")
    await simulation.after(200)
    assert simulation.status(job) == "failed"
    assert simulation.engine.jobs[job].failures == {("Send", "MAILBOX_FULL"): 10}


async def test_a_step_is_retried_before_its_record_fails(tmp_path: Path) -> None:
    simulation = Simulation(scenario(tmp_path, spinner={"records": 1, "steps": [{**ALWAYS_FAILS, "attempts": 3}]}))
    job = simulation.engine.trigger("mail")
    await simulation.after(200)
    assert simulation.engine.jobs[job].ended_at == 31
    assert simulation.engine.jobs[job].records[0].attempts == 3


async def test_records_whose_steps_take_no_time_complete(tmp_path: Path) -> None:
    simulation = Simulation(scenario(tmp_path, spinner={"records": 5000, "steps": [{"name": "Note", "type": "log"}]}))
    job = simulation.engine.trigger("mail")
    await simulation.after(1)
    assert simulation.status(job) == "completed"


async def test_a_run_is_queued_while_all_slots_are_in_use(tmp_path: Path) -> None:
    simulation = Simulation(scenario(tmp_path))
    jobs = [simulation.engine.trigger("mail") for _ in range(3)]
    await simulation.after(60)
    assert [simulation.status(job) for job in jobs] == ["running", "running", "queued"]
    await simulation.after(60)
    assert [simulation.status(job) for job in jobs] == ["completed", "completed", "running"]


async def test_a_run_that_only_waits_for_persons_is_waiting_and_releases_its_slot(tmp_path: Path) -> None:
    simulation = Simulation(scenario(tmp_path, spinner={"steps": [ASK, EMAIL]}))
    jobs = [simulation.engine.trigger("mail") for _ in range(3)]
    await simulation.after(60)
    assert [simulation.status(job) for job in jobs] == ["waiting"] * 3
    assert simulation.engine.jobs[jobs[0]].waiting_until == 1 + 20 * 60
    await simulation.after(9 * 60 + 5)
    assert simulation.status(jobs[0]) == "running"
    assert simulation.engine.jobs[jobs[0]].waiting_until is None
    await simulation.after(10 * 60)
    assert [simulation.status(job) for job in jobs] == ["completed"] * 3


async def test_a_record_fails_if_the_person_does_not_respond(tmp_path: Path) -> None:
    silent = {**ASK, "wait": {"answer": "1h", "timeout": "20m"}}
    simulation = Simulation(scenario(tmp_path, spinner={"steps": [silent]}))
    job = simulation.engine.trigger("mail")
    await simulation.after(1300)
    assert simulation.engine.jobs[job].failures == {("Ask", "NO_ANSWER"): 10}


async def test_failed_records_are_retried_in_a_child_run(tmp_path: Path) -> None:
    with_outage = scenario(
        tmp_path,
        spinner={"steps": [EMAIL], "retry": {"after": "5m", "times": 1}},
        incidents=[{"kind": "outage", "at": "0s", "lasts": "95s", "step_type": "email", "code": "DOWN", "share": 0.5}],
    )
    simulation = Simulation(with_outage)
    parent = simulation.engine.trigger("mail")
    await simulation.after(101)
    failed = simulation.engine.jobs[parent].failed
    assert 0 < failed < 10
    await simulation.after(300)
    child = list(simulation.engine.jobs.values())[-1]
    assert (child.trigger, child.parent_id, child.total) == ("child", parent, failed)
    await simulation.after(3600)
    assert (child.label, child.failed) == ("completed", 0)
    assert len(simulation.engine.jobs) == 2


async def test_a_record_without_the_required_phone_number_fails_and_is_not_retried(tmp_path: Path) -> None:
    spinner = {"records": len(contacts()), "steps": [{**EMAIL, "type": "sms"}], "retry": {"after": "1m"}}
    simulation = Simulation(scenario(tmp_path, spinner=spinner))
    job = simulation.engine.trigger("mail")
    await simulation.after(7200)
    missing = sum(not contact.phone for contact in contacts())
    assert simulation.engine.jobs[job].failures == {("Send", "NO_PHONE_NUMBER"): missing}
    assert len(simulation.engine.jobs) == 1


async def test_while_the_runtime_is_down_runs_are_created_but_not_processed(tmp_path: Path) -> None:
    simulation = Simulation(scenario(tmp_path))
    moving = simulation.engine.trigger("mail")
    engine = await simulation.after(50)
    engine.take_runtime_down()
    before = simulation.counts(moving)
    created = engine.trigger("mail")
    await simulation.after(3600)
    assert (simulation.counts(moving), simulation.status(created)) == (before, "queued")
    assert (engine.heartbeat.up, engine.heartbeat.last_at, engine.heartbeat.workers) == (False, 45, 0)
    engine.bring_runtime_up()
    await simulation.after(120)
    assert [simulation.status(job) for job in (moving, created)] == ["completed", "completed"]
    assert (engine.heartbeat.up, engine.heartbeat.last_at, engine.heartbeat.workers) == (True, 3650 + 120, 1)


async def test_an_unnoticed_outage_is_visible_only_in_the_heartbeat(tmp_path: Path) -> None:
    simulation = Simulation(scenario(tmp_path, incidents=[{"kind": "runtime_down", "at": "1m", "unnoticed": "10m"}]))
    engine = await simulation.after(300)
    assert (engine.heartbeat.up, engine.heartbeat.last_at) == (True, 60)
    await simulation.after(600)
    assert (engine.heartbeat.up, engine.heartbeat.last_at) == (False, 60)


async def test_the_records_of_a_stalled_run_hang_and_those_of_other_runs_do_not(tmp_path: Path) -> None:
    simulation = Simulation(
        scenario(tmp_path, incidents=[{"kind": "stall", "at": "30s", "spinner": "Mail", "lasts": "1h"}])
    )
    stalled, other = simulation.engine.trigger("mail"), simulation.engine.trigger("mail")
    await simulation.after(1800)
    assert (simulation.counts(stalled), simulation.status(stalled)) == ((6, 1, 0, 3, 0), "running")
    assert simulation.status(other) == "completed"
    await simulation.after(1830 + 70)
    assert simulation.status(stalled) == "completed"


async def test_a_slow_step_takes_longer_by_its_factor(tmp_path: Path) -> None:
    slow = {"kind": "slow", "at": "0s", "spinner": "Mail", "step": "Send", "factor": 6}
    simulation = Simulation(scenario(tmp_path, spinner={"records": 1}, incidents=[slow]))
    job = simulation.engine.trigger("mail")
    await simulation.after(120)
    assert simulation.engine.jobs[job].ended_at == 61


async def test_a_cancelled_run_keeps_the_state_of_its_records(tmp_path: Path) -> None:
    simulation = Simulation(scenario(tmp_path, incidents=[{"kind": "cancel", "at": "26s", "spinner": "Mail"}]))
    job = simulation.engine.trigger("mail")
    await simulation.after(3600)
    assert (simulation.status(job), simulation.counts(job)) == ("cancelled", (7, 1, 0, 2, 0))
    assert simulation.engine.ledger[job].ended_at == 26


async def test_a_full_plan_refuses_new_runs_until_the_next_month(tmp_path: Path) -> None:
    simulation = Simulation(scenario(tmp_path, plan={"jobs_month": {"used": 1, "limit": 2}}))
    simulation.engine.trigger("mail")
    with pytest.raises(PlanLimitError, match="jobs_month"):
        simulation.engine.trigger("mail")
    await simulation.after(26 * 86400 + 15 * 3600)  # from 5 January, 9:00, to the 1st
    assert [meter.used for meter in simulation.engine.plan.meters] == [0, 0, 1]
    simulation.engine.trigger("mail")
    assert [meter.used for meter in simulation.engine.plan.meters] == [1, 10, 1]


async def test_a_schedule_creates_no_runs_while_the_plan_refuses_them(tmp_path: Path) -> None:
    limit = {"kind": "plan_limit", "at": "90s", "meter": "records_month", "limit": 5, "lasts": "2m"}
    simulation = Simulation(scenario(tmp_path, spinner={"runs": [{"every": "1m", "offset": "0s"}]}, incidents=[limit]))
    await simulation.after(400)
    assert [run.created_at for run in simulation.engine.jobs.values()] == [0, 60, 240, 300, 360]


def test_an_unknown_spinner_cannot_be_triggered(tmp_path: Path) -> None:
    with pytest.raises(UnknownSpinnerError):
        Simulation(scenario(tmp_path)).engine.trigger("nobody")


async def test_the_api_drops_ended_runs_after_the_history_and_the_ledger_keeps_them(tmp_path: Path) -> None:
    simulation = Simulation(scenario(tmp_path, history="1h"))
    job = simulation.engine.trigger("mail")
    await simulation.after(101 + 3600)
    assert job in simulation.engine.jobs
    await simulation.after(1)
    assert job not in simulation.engine.jobs
    ended = simulation.engine.ledger[job]
    assert (ended.project, ended.spinner, ended.status, ended.completed, ended.failed) == (
        "Shop",
        "Mail",
        "completed",
        10,
        0,
    )
    assert (ended.started_at, ended.ended_at) == (1, 101)


async def test_a_scenario_starts_with_the_runs_of_the_time_before(tmp_path: Path) -> None:
    simulation = Simulation(scenario(tmp_path, before="1h", spinner={"runs": [{"every": "10m", "offset": "9m50s"}]}))
    assert [run.created_at for run in simulation.engine.jobs.values()] == [-10 - 600 * n for n in range(5, -1, -1)]
    assert [run.label for run in simulation.engine.jobs.values()] == ["completed"] * 5 + ["running"]


def everything(engine: Engine) -> list[Any]:
    return [
        (run.id, run.label, run.updated_at, run.failures, [dataclasses.astuple(record) for record in run.records])
        for run in engine.jobs.values()
    ]


@pytest.mark.parametrize("name", ["healthy", "provider-outage", "runtime-down"])
async def test_equal_seeds_have_equal_results_regardless_of_accesses(name: str) -> None:
    watched, alone = Simulation(load_scenario(name), seed=7), Simulation(load_scenario(name), seed=7)
    for _ in range(60):
        await watched.after(60)
        assert watched.engine.jobs
    await alone.after(3600)
    assert everything(watched.engine) == everything(alone.engine)
    assert dict(watched.engine.ledger) == dict(alone.engine.ledger)


async def test_another_seed_has_another_result() -> None:
    assert everything(Simulation(load_scenario("healthy"), seed=1).engine) != everything(
        Simulation(load_scenario("healthy"), seed=2).engine
    )


async def test_an_additional_run_does_not_change_runs_of_other_spinners() -> None:
    disturbed, calm = Simulation(load_scenario("healthy")), Simulation(load_scenario("healthy"))
    disturbed.engine.trigger("offers")
    outcomes = []
    for simulation in (disturbed, calm):
        await simulation.after(7200)
        ended = [run for run in simulation.engine.ledger.values() if run.spinner != "Offer approval"]
        outcomes.append({run.id: (run.completed, run.failed) for run in ended})
    assert outcomes[0] == outcomes[1]


async def test_record_counts_add_up_to_the_total_at_any_time() -> None:
    simulation = Simulation(load_scenario("healthy"))
    for _ in range(120):
        await simulation.after(37)
        for run in simulation.engine.jobs.values():
            assert run.pending + run.running + run.waiting + run.completed + run.failed == run.total
            assert (run.ended_at is None) == (run.completed + run.failed < run.total)


def test_the_large_organisation_starts_with_thousands_of_runs() -> None:
    engine = Engine(load_scenario("large-org"), timeline=ManualTimeline())
    assert len(engine.projects) == 200
    assert len(engine.jobs) > 4000
    assert sum(run.ended_at is None for run in engine.jobs.values()) > 500
