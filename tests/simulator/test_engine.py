"""How runs and their records move."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from exporter.simulator import Engine, ManualTimeline, PlanLimitError, UnknownSpinnerError, load_scenario
from exporter.simulator.contacts import contacts
from tests.simulator.stories import EMAIL, World, scenario

SURE_TO_FAIL = {**EMAIL, "failures": {"MAILBOX_FULL": 1}}
ASK = {"name": "Ask", "type": "human_call", "wait": {"answer": "10m", "timeout": "20m"}}


async def test_a_run_is_queued_picked_up_worked_off_record_by_record_and_completed(tmp_path: Path) -> None:
    world = World(scenario(tmp_path))
    job = world.engine.trigger("mail")
    assert (world.status(job), world.counts(job)) == ("queued", (10, 0, 0, 0, 0))
    await world.after(1)
    assert (world.status(job), world.counts(job)) == ("running", (9, 1, 0, 0, 0))
    await world.after(35)
    assert (world.status(job), world.counts(job)) == ("running", (6, 1, 0, 3, 0))
    assert world.engine.jobs[job].last_progress_at == 31
    await world.after(65)
    assert (world.status(job), world.counts(job)) == ("completed", (0, 0, 0, 10, 0))
    assert world.engine.jobs[job].ended_at == 101


async def test_a_run_without_one_good_record_has_failed(tmp_path: Path) -> None:
    world = World(scenario(tmp_path, spinner={"steps": [SURE_TO_FAIL]}))
    job = world.engine.trigger("mail")
    await world.after(200)
    assert world.status(job) == "failed"
    assert world.engine.jobs[job].failures == {("Send", "MAILBOX_FULL"): 10}


async def test_a_step_is_attempted_again_before_its_record_fails(tmp_path: Path) -> None:
    world = World(scenario(tmp_path, spinner={"records": 1, "steps": [{**SURE_TO_FAIL, "attempts": 3}]}))
    job = world.engine.trigger("mail")
    await world.after(200)
    assert world.engine.jobs[job].ended_at == 31
    assert world.engine.jobs[job].records[0].attempts == 3


async def test_records_of_steps_that_take_no_time_end_all_the_same(tmp_path: Path) -> None:
    world = World(scenario(tmp_path, spinner={"records": 5000, "steps": [{"name": "Note", "type": "log"}]}))
    job = world.engine.trigger("mail")
    await world.after(1)
    assert world.status(job) == "completed"


async def test_a_run_waits_for_a_slot_while_all_are_taken(tmp_path: Path) -> None:
    world = World(scenario(tmp_path))
    jobs = [world.engine.trigger("mail") for _ in range(3)]
    await world.after(60)
    assert [world.status(job) for job in jobs] == ["running", "running", "queued"]
    await world.after(60)
    assert [world.status(job) for job in jobs] == ["completed", "completed", "running"]


async def test_a_run_whose_records_all_wait_for_people_is_waiting_and_leaves_its_slot(tmp_path: Path) -> None:
    world = World(scenario(tmp_path, spinner={"steps": [ASK, EMAIL]}))
    jobs = [world.engine.trigger("mail") for _ in range(3)]
    await world.after(60)
    assert [world.status(job) for job in jobs] == ["waiting"] * 3
    assert world.engine.jobs[jobs[0]].waiting_until == 1 + 20 * 60
    await world.after(9 * 60 + 5)
    assert world.status(jobs[0]) == "running"
    assert world.engine.jobs[jobs[0]].waiting_until is None
    await world.after(10 * 60)
    assert [world.status(job) for job in jobs] == ["completed"] * 3


async def test_a_person_who_stays_silent_fails_the_record(tmp_path: Path) -> None:
    silent = {**ASK, "wait": {"answer": "1h", "timeout": "20m"}}
    world = World(scenario(tmp_path, spinner={"steps": [silent]}))
    job = world.engine.trigger("mail")
    await world.after(1300)
    assert world.engine.jobs[job].failures == {("Ask", "NO_ANSWER"): 10}


async def test_failed_records_are_tried_again_in_a_child_run(tmp_path: Path) -> None:
    story = scenario(
        tmp_path,
        spinner={"steps": [EMAIL], "retry": {"after": "5m", "times": 1}},
        incidents=[{"kind": "outage", "at": "0s", "lasts": "95s", "step_type": "email", "code": "DOWN", "share": 0.5}],
    )
    world = World(story)
    parent = world.engine.trigger("mail")
    await world.after(101)
    failed = world.engine.jobs[parent].failed
    assert 0 < failed < 10
    await world.after(300)
    child = list(world.engine.jobs.values())[-1]
    assert (child.trigger, child.parent_id, child.total) == ("child", parent, failed)
    await world.after(3600)
    assert (child.label, child.failed) == ("completed", 0)
    assert len(world.engine.jobs) == 2


async def test_a_contact_without_the_number_that_a_step_needs_fails_and_is_not_tried_again(tmp_path: Path) -> None:
    spinner = {"records": len(contacts()), "steps": [{**EMAIL, "type": "sms"}], "retry": {"after": "1m"}}
    world = World(scenario(tmp_path, spinner=spinner))
    job = world.engine.trigger("mail")
    await world.after(7200)
    missing = sum(not contact.phone for contact in contacts())
    assert world.engine.jobs[job].failures == {("Send", "NO_PHONE_NUMBER"): missing}
    assert len(world.engine.jobs) == 1


async def test_a_runtime_that_is_down_moves_nothing_while_runs_are_still_created(tmp_path: Path) -> None:
    world = World(scenario(tmp_path))
    moving = world.engine.trigger("mail")
    engine = await world.after(50)
    engine.take_runtime_down()
    before = world.counts(moving)
    created = engine.trigger("mail")
    await world.after(3600)
    assert (world.counts(moving), world.status(created)) == (before, "queued")
    assert (engine.pulse.up, engine.pulse.last_heartbeat_at, engine.pulse.workers) == (False, 45, 0)
    engine.bring_runtime_up()
    await world.after(120)
    assert [world.status(job) for job in (moving, created)] == ["completed", "completed"]
    assert (engine.pulse.up, engine.pulse.last_heartbeat_at, engine.pulse.workers) == (True, 3650 + 120, 1)


async def test_an_outage_that_goes_unnoticed_shows_in_the_heartbeat_alone(tmp_path: Path) -> None:
    world = World(scenario(tmp_path, incidents=[{"kind": "runtime_down", "at": "1m", "unnoticed": "10m"}]))
    engine = await world.after(300)
    assert (engine.pulse.up, engine.pulse.last_heartbeat_at) == (True, 60)
    await world.after(600)
    assert (engine.pulse.up, engine.pulse.last_heartbeat_at) == (False, 60)


async def test_the_records_of_a_stalled_run_hang_and_those_of_other_runs_do_not(tmp_path: Path) -> None:
    world = World(scenario(tmp_path, incidents=[{"kind": "stall", "at": "30s", "spinner": "Mail", "lasts": "1h"}]))
    stalled, other = world.engine.trigger("mail"), world.engine.trigger("mail")
    await world.after(1800)
    assert (world.counts(stalled), world.status(stalled)) == ((6, 1, 0, 3, 0), "running")
    assert world.status(other) == "completed"
    await world.after(1830 + 70)
    assert world.status(stalled) == "completed"


async def test_a_slow_step_takes_its_factor_longer(tmp_path: Path) -> None:
    slow = {"kind": "slow", "at": "0s", "spinner": "Mail", "step": "Send", "factor": 6}
    world = World(scenario(tmp_path, spinner={"records": 1}, incidents=[slow]))
    job = world.engine.trigger("mail")
    await world.after(120)
    assert world.engine.jobs[job].ended_at == 61


async def test_a_cancelled_run_ends_with_its_records_as_they_were(tmp_path: Path) -> None:
    world = World(scenario(tmp_path, incidents=[{"kind": "cancel", "at": "26s", "spinner": "Mail"}]))
    job = world.engine.trigger("mail")
    await world.after(3600)
    assert (world.status(job), world.counts(job)) == ("cancelled", (7, 1, 0, 2, 0))
    assert world.engine.ledger[job].ended_at == 26


async def test_a_full_plan_refuses_new_runs_until_the_month_ends(tmp_path: Path) -> None:
    world = World(scenario(tmp_path, plan={"jobs_month": {"used": 1, "limit": 2}}))
    world.engine.trigger("mail")
    with pytest.raises(PlanLimitError, match="jobs_month"):
        world.engine.trigger("mail")
    await world.after(26 * 86400 + 15 * 3600)  # from 5 January, 9:00, to the 1st
    assert [meter.used for meter in world.engine.plan.meters] == [0, 0, 1]
    world.engine.trigger("mail")
    assert [meter.used for meter in world.engine.plan.meters] == [1, 10, 1]


async def test_a_schedule_that_the_plan_refuses_creates_nothing(tmp_path: Path) -> None:
    limit = {"kind": "plan_limit", "at": "90s", "meter": "records_month", "limit": 5, "lasts": "2m"}
    world = World(scenario(tmp_path, spinner={"runs": [{"every": "1m", "offset": "0s"}]}, incidents=[limit]))
    await world.after(400)
    assert [run.created_at for run in world.engine.jobs.values()] == [0, 60, 240, 300, 360]


def test_an_unknown_spinner_cannot_be_triggered(tmp_path: Path) -> None:
    with pytest.raises(UnknownSpinnerError):
        World(scenario(tmp_path)).engine.trigger("nobody")


async def test_the_api_forgets_ended_runs_after_a_time_and_the_ledger_does_not(tmp_path: Path) -> None:
    world = World(scenario(tmp_path, history="1h"))
    job = world.engine.trigger("mail")
    await world.after(101 + 3600)
    assert job in world.engine.jobs
    await world.after(1)
    assert job not in world.engine.jobs
    ended = world.engine.ledger[job]
    assert (ended.project, ended.spinner, ended.status, ended.completed, ended.failed) == (
        "Shop",
        "Mail",
        "completed",
        10,
        0,
    )
    assert (ended.started_at, ended.ended_at) == (1, 101)


async def test_a_story_begins_in_the_middle_of_what_went_before(tmp_path: Path) -> None:
    world = World(scenario(tmp_path, before="1h", spinner={"runs": [{"every": "10m", "offset": "9m50s"}]}))
    assert [run.created_at for run in world.engine.jobs.values()] == [-10 - 600 * n for n in range(5, -1, -1)]
    assert [run.label for run in world.engine.jobs.values()] == ["completed"] * 5 + ["running"]


def everything(engine: Engine) -> list[Any]:
    return [
        (run.id, run.label, run.updated_at, run.failures, [dataclasses.astuple(record) for record in run.records])
        for run in engine.jobs.values()
    ]


@pytest.mark.parametrize("name", ["healthy", "provider-outage", "runtime-down"])
async def test_equal_seeds_make_equal_worlds_however_often_somebody_looks(name: str) -> None:
    watched, alone = World(load_scenario(name), seed=7), World(load_scenario(name), seed=7)
    for _ in range(60):
        await watched.after(60)
        assert watched.engine.jobs
    await alone.after(3600)
    assert everything(watched.engine) == everything(alone.engine)
    assert dict(watched.engine.ledger) == dict(alone.engine.ledger)


async def test_another_seed_makes_another_world() -> None:
    assert everything(World(load_scenario("healthy"), seed=1).engine) != everything(
        World(load_scenario("healthy"), seed=2).engine
    )


async def test_a_run_more_changes_nothing_in_the_runs_of_other_spinners() -> None:
    disturbed, calm = World(load_scenario("healthy")), World(load_scenario("healthy"))
    disturbed.engine.trigger("offers")
    outcomes = []
    for world in (disturbed, calm):
        await world.after(7200)
        ended = [run for run in world.engine.ledger.values() if run.spinner != "Offer approval"]
        outcomes.append({run.id: (run.completed, run.failed) for run in ended})
    assert outcomes[0] == outcomes[1]


async def test_records_add_up_at_every_moment() -> None:
    world = World(load_scenario("healthy"))
    for _ in range(120):
        await world.after(37)
        for run in world.engine.jobs.values():
            assert run.pending + run.running + run.waiting + run.completed + run.failed == run.total
            assert (run.ended_at is None) == (run.completed + run.failed < run.total)


def test_a_large_organisation_has_thousands_of_runs_when_its_story_begins() -> None:
    engine = Engine(load_scenario("large-org"), timeline=ManualTimeline())
    assert len(engine.projects) == 200
    assert len(engine.jobs) > 4000
    assert sum(run.ended_at is None for run in engine.jobs.values()) > 500
