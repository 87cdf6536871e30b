"""The lists of the runs of all projects, and of the failed records of all runs."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from exporter.simulator import create_app, load_scenario
from tests.simulator.simulation import EMAIL, Simulation, scenario
from tests.simulator.test_api import pages, problem

SINCE = "2026-01-05T09:00:00Z"


def two_projects(folder: Path, **spinner: Any) -> Simulation:
    step = {**EMAIL, **spinner}
    projects = [
        {"name": name, "id": name, "spinners": [{"name": "Mail", "id": f"{name}-mail", "records": 3, "steps": [step]}]}
        for name in ("shop", "clinic")
    ]
    return Simulation(scenario(folder, projects=projects, runtime={"workers": 2, "slots": 10, "pickup": "1s"}))


async def test_the_list_of_all_projects_has_the_items_of_their_own_lists_in_the_order_of_change() -> None:
    simulation = Simulation(load_scenario("healthy"), speed=60)
    await simulation.after(600)
    async with simulation.client() as client:
        for filters in ({}, {"active": "true"}, {"updatedSince": SINCE}, {"status": "completed"}):
            own: dict[str, Any] = {}
            for project in simulation.engine.projects:
                listed = await client.get(f"/api/v1/projects/{project}/jobs", params={"limit": 500, **filters})
                own |= {job["id"]: job for job in listed.json()["items"]}
            listed = await client.get("/api/v1/jobs", params={"limit": 500, **filters})
            assert listed.json()["nextCursor"] is None
            assert {job["id"]: job for job in listed.json()["items"]} == own
            assert own, filters
        listed = await client.get("/api/v1/jobs", params={"limit": 500, "updatedSince": SINCE})
        changes = [job["updatedAt"] for job in listed.json()["items"]]
        assert changes == sorted(changes)


async def test_it_can_be_narrowed_to_a_project(tmp_path: Path) -> None:
    simulation = two_projects(tmp_path)
    jobs = {name: [simulation.engine.trigger(f"{name}-mail") for _ in range(3)] for name in ("shop", "clinic")}
    await simulation.after(5)
    async with simulation.client() as client:
        assert await pages(client, "/api/v1/jobs", projectId="clinic", limit=2) == [
            jobs["clinic"][:2],
            jobs["clinic"][2:],
        ]
        assert await pages(client, "/api/v1/jobs", projectId="nobody") == [[]]
        listed = [job for page in await pages(client, "/api/v1/jobs", limit=4, updatedSince=SINCE) for job in page]
        assert sorted(listed) == sorted(jobs["shop"] + jobs["clinic"])
        cursor = (await client.get("/api/v1/jobs", params={"limit": 1})).json()["nextCursor"]
        other = await client.get("/api/v1/jobs", params={"limit": 1, "projectId": "shop", "cursor": cursor})
        assert problem(other) == (400, "INVALID_PARAMETER")
        assert problem(await client.get("/api/v1/jobs?projectId=")) == (400, "INVALID_PARAMETER")


async def test_an_ended_run_leaves_it_after_the_history(tmp_path: Path) -> None:
    simulation = Simulation(scenario(tmp_path, history="1h"))
    simulation.engine.trigger("mail")
    async with simulation.client() as client:
        await simulation.after(600)
        assert len((await client.get("/api/v1/jobs")).json()["items"]) == 1
        await simulation.after(7200)
        assert await pages(client, "/api/v1/jobs") == [[]]
        assert await pages(client, "/api/v1/jobs", updatedSince=SINCE) == [[]]


async def test_the_failed_records_of_all_runs_are_those_of_each_run_in_the_order_of_failure(tmp_path: Path) -> None:
    simulation = two_projects(tmp_path, failures={"MAILBOX_FULL": 1})
    jobs = [simulation.engine.trigger(f"{name}-mail") for name in ("shop", "clinic")]
    await simulation.after(100)
    async with simulation.client() as client:
        own = [
            {**record, "projectId": simulation.engine.jobs[job].project.id}
            for job in jobs
            for record in (await client.get(f"/api/v1/jobs/{job}/records?status=failed")).json()["items"]
        ]
        listed = (await client.get("/api/v1/records?status=failed")).json()["items"]
        assert len(listed) == 6
        assert sorted(listed, key=lambda each: each["id"]) == sorted(own, key=lambda each: each["id"])
        ends = [record["endedAt"] for record in listed]
        assert ends == sorted(ends)
        ids = [record["id"] for record in listed]
        assert await pages(client, "/api/v1/records", status="failed", limit=4) == [ids[:4], ids[4:]]
        since = {"status": "failed", "updatedSince": ends[-1]}
        assert await pages(client, "/api/v1/records", **since) == [
            [each["id"] for each in listed if each["endedAt"] == ends[-1]]
        ]


async def test_records_of_a_run_that_left_leave_too(tmp_path: Path) -> None:
    simulation = Simulation(scenario(tmp_path, history="1h", spinner={"steps": [{**EMAIL, "failures": {"BAD": 1}}]}))
    simulation.engine.trigger("mail")
    async with simulation.client() as client:
        await simulation.after(600)
        assert len((await client.get("/api/v1/records?status=failed")).json()["items"]) == 10
        await simulation.after(7200)
        assert await pages(client, "/api/v1/records", status="failed") == [[]]


@pytest.mark.parametrize("query", ["", "status=completed", "status=failed&active=true", "status=failed&projectId=shop"])
async def test_only_failed_records_are_listed_for_all_runs(tmp_path: Path, query: str) -> None:
    async with Simulation(scenario(tmp_path)).client() as client:
        assert problem(await client.get(f"/api/v1/records?{query}")) == (400, "INVALID_PARAMETER")


async def test_a_runtime_of_the_old_contract_has_neither_list(tmp_path: Path) -> None:
    engine = Simulation(scenario(tmp_path)).engine
    app = create_app(engine, run_engine=False, lists_across_projects=False)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://runtime") as client:
        assert problem(await client.get("/api/v1/jobs")) == (404, "NOT_FOUND")
        assert problem(await client.get("/api/v1/records?status=failed")) == (404, "NOT_FOUND")
        assert (await client.get("/api/v1/projects/shop/jobs")).status_code == 200
