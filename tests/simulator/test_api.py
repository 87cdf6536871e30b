"""The HTTP API implements the contract."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from exporter.simulator import Engine, ManualTimeline, create_app, load_scenario
from tests.simulator.simulation import EMAIL, Simulation, scenario

JOBS = "/api/v1/projects/shop/jobs"


async def pages(client: httpx.AsyncClient, path: str, **parameters: Any) -> list[list[str]]:
    """Read a whole list and return the ids on each page."""
    found = []
    while True:
        page = (await client.get(path, params=parameters)).raise_for_status().json()
        found.append([item["id"] for item in page["items"]])
        if page["nextCursor"] is None:
            return found
        parameters["cursor"] = page["nextCursor"]


def problem(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert body.keys() == {"error", "errorCode"}
    assert body["error"]
    return response.status_code, body["errorCode"]


async def test_a_job_has_all_fields_of_the_contract(tmp_path: Path) -> None:
    failing = {**EMAIL, "failures": {"MAILBOX_FULL": 1}}
    simulation = Simulation(scenario(tmp_path, spinner={"steps": [failing], "due": "2h", "records": 3}), speed=2)
    job = simulation.engine.trigger("mail")
    await simulation.after(25)
    async with simulation.client() as client:
        assert (await client.get(f"/api/v1/jobs/{job}")).json() == {
            "id": job,
            "projectId": "shop",
            "spinnerId": "mail",
            "spinnerName": "Mail",
            "trigger": "manual",
            "parentJobId": None,
            "status": "running",
            "createdAt": "2026-01-05T09:00:00.000Z",
            "startedAt": "2026-01-05T09:00:00.500Z",
            "endedAt": None,
            "updatedAt": "2026-01-05T09:00:10.500Z",
            "lastProgressAt": "2026-01-05T09:00:10.500Z",
            "waitingUntil": None,
            "dueAt": "2026-01-05T10:00:00.000Z",
            "records": {"total": 3, "pending": 0, "running": 1, "waiting": 0, "completed": 0, "failed": 2},
            "failures": [{"step": "Send", "errorCode": "MAILBOX_FULL", "count": 2}],
        }


async def test_the_total_of_an_uncounted_run_is_null_until_its_end(tmp_path: Path) -> None:
    simulation = Simulation(scenario(tmp_path, spinner={"counted": False}))
    job = simulation.engine.trigger("mail")
    async with simulation.client() as client:
        await simulation.after(20)
        records = (await client.get(f"/api/v1/jobs/{job}")).json()["records"]
        assert (records["total"], records["pending"], records["completed"]) == (None, None, 1)
        await simulation.after(100)
        records = (await client.get(f"/api/v1/jobs/{job}")).json()["records"]
        assert (records["total"], records["pending"], records["completed"]) == (10, 0, 10)


async def test_a_status_has_the_label_of_the_project(tmp_path: Path) -> None:
    wording = {"queued": "Parked", "running": "in_progress", "partial": "partial"}
    outage = {"kind": "outage", "at": "0s", "lasts": "15s", "step_type": "email", "code": "DOWN"}
    simulation = Simulation(scenario(tmp_path, wording=wording, incidents=[outage]))
    job = simulation.engine.trigger("mail")
    labels = []
    async with simulation.client() as client:
        for _ in range(3):
            labels.append((await client.get(f"/api/v1/jobs/{job}")).json()["status"])
            assert await pages(client, JOBS, status=labels[-1]) == [[job]]
            await simulation.after(60)
    assert labels == ["Parked", "in_progress", "partial"]


async def test_failed_records_have_their_step_and_personal_data_only_in_the_message(tmp_path: Path) -> None:
    failing = {"name": "Text", "type": "sms", "latency": "10s", "failures": {"NO_CREDIT": 1}, "attempts": 2}
    simulation = Simulation(
        scenario(tmp_path, spinner={"steps": [{"name": "Note", "type": "log"}, failing], "records": 2})
    )
    job = simulation.engine.trigger("mail")
    await simulation.after(60)
    async with simulation.client() as client:
        record = (await client.get(f"/api/v1/jobs/{job}/records?status=failed")).json()["items"][0]
    assert "-555-01" in record.pop("errorMessage")
    assert record == {
        "id": job.replace("job", "rec") + "_0",
        "jobId": job,
        "status": "failed",
        "failedStep": {"index": 1, "type": "sms", "name": "Text"},
        "errorCode": "NO_CREDIT",
        "startedAt": "2026-01-05T09:00:01.000Z",
        "endedAt": "2026-01-05T09:00:21.000Z",
        "attempts": 2,
        "step": None,
    }


async def test_a_record_in_progress_has_the_step_at_which_it_is(tmp_path: Path) -> None:
    steps = [
        {"name": "Note", "type": "log"},
        {"name": "Write", "type": "ai_agent", "latency": "10s"},
        {"name": "Ask", "type": "human_call", "latency": "5s", "wait": {"answer": "1h", "timeout": "2h"}},
    ]
    simulation = Simulation(scenario(tmp_path, spinner={"steps": steps, "records": 1}))
    job = simulation.engine.trigger("mail")
    seen = []
    async with simulation.client() as client:
        for seconds in (5, 7, 60, 4000):
            await simulation.after(seconds)
            (record,) = (await client.get(f"/api/v1/jobs/{job}/records")).json()["items"]
            step = record["step"]
            seen.append(
                (record["status"], step and (step["index"], step["type"], step["name"], step["startedAt"][14:19]))
            )
    assert seen == [
        ("running", (1, "ai_agent", "Write", "00:01")),
        ("running", (2, "human_call", "Ask", "00:11")),
        ("waiting", (2, "human_call", "Ask", "00:11")),
        ("completed", None),
    ]


async def test_records_are_listed_completely_and_by_status(tmp_path: Path) -> None:
    simulation = Simulation(scenario(tmp_path))
    job = simulation.engine.trigger("mail")
    await simulation.after(35)
    path = f"/api/v1/jobs/{job}/records"
    async with simulation.client() as client:
        records = await pages(client, path, limit=4)
        assert [len(page) for page in records] == [4, 4, 2]
        assert await pages(client, path, status="completed", limit=2) == [records[0][:2], records[0][2:3]]
        assert await pages(client, path, status="running") == [records[0][3:]]
        assert await pages(client, path, status="pending", limit=3) == [records[1][:3], [records[1][3], *records[2]]]
        assert await pages(client, path, status="failed") == [[]]
        assert problem(await client.get(path, params={"status": "lost"})) == (400, "INVALID_PARAMETER")


async def test_runs_are_listed_once_in_order_of_creation(tmp_path: Path) -> None:
    simulation = Simulation(scenario(tmp_path))
    jobs = [simulation.engine.trigger("mail") for _ in range(5)]
    await simulation.after(30)
    async with simulation.client() as client:
        assert await pages(client, JOBS, limit=2) == [jobs[:2], jobs[2:4], jobs[4:]]
        assert await pages(client, JOBS, limit=5) == [jobs]
        assert await pages(client, JOBS, status="queued") == [jobs[2:]]


async def test_active_runs_are_listed_regardless_of_age(tmp_path: Path) -> None:
    simulation = Simulation(
        scenario(tmp_path, incidents=[{"kind": "stall", "at": "0s", "spinner": "Mail"}], history="1h")
    )
    stuck, done = simulation.engine.trigger("mail"), simulation.engine.trigger("mail")
    await simulation.after(7 * 86400)
    async with simulation.client() as client:
        assert await pages(client, JOBS, active="true") == [[stuck]]
        assert await pages(client, JOBS, active="true", updatedSince="2000-01-01T00:00:00Z") == [[stuck]]
        assert problem(await client.get(f"/api/v1/jobs/{done}")) == (404, "NOT_FOUND")


async def test_changed_runs_are_listed_in_order_of_change_and_inclusively(tmp_path: Path) -> None:
    simulation = Simulation(scenario(tmp_path, spinner={"records": 2}))
    first = simulation.engine.trigger("mail")
    await simulation.after(5)
    second = simulation.engine.trigger("mail")
    await simulation.after(10.5)  # a record of the first run ended at 11, the second run was picked up at 6
    async with simulation.client() as client:
        assert await pages(client, JOBS, updatedSince="2026-01-05T09:00:00Z") == [[second, first]]
        assert await pages(client, JOBS, updatedSince="2026-01-05T09:00:11.000Z") == [[first]]
        assert await pages(client, JOBS, updatedSince="2026-01-05T10:00:11.001+01:00") == [[]]


async def test_no_change_is_lost_between_as_of_and_the_next_read(tmp_path: Path) -> None:
    simulation = Simulation(load_scenario("healthy"), speed=60)
    seen: dict[str, dict[str, Any]] = {}
    async with simulation.client() as client:
        since = "2000-01-01T00:00:00Z"
        for _ in range(40):
            page = (
                await client.get("/api/v1/projects/clinic/jobs", params={"updatedSince": since, "limit": 500})
            ).json()
            seen |= {job["id"]: job for job in page["items"]}
            since = page["asOf"]
            assert seen == {
                job["id"]: job for job in (await client.get("/api/v1/projects/clinic/jobs?limit=500")).json()["items"]
            }
            await simulation.after(33)


async def test_a_run_that_changes_while_pages_are_read_is_not_lost(tmp_path: Path) -> None:
    simulation = Simulation(scenario(tmp_path, runtime={"workers": 2, "slots": 10, "pickup": "1s"}))
    jobs = {simulation.engine.trigger("mail") for _ in range(20)}
    seen: list[str] = []
    parameters: dict[str, Any] = {"updatedSince": "2026-01-05T09:00:00Z", "limit": 6}
    async with simulation.client() as client:
        while True:
            page = (await client.get(JOBS, params=parameters)).json()
            seen += [job["id"] for job in page["items"]]
            if page["nextCursor"] is None:
                break
            parameters["cursor"] = page["nextCursor"]
            await simulation.after(5)
    assert set(seen) == jobs
    assert len(seen) > len(jobs)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=501", "limit=-1", "limit=1.0", "limit=%2B1", "limit=", "limit=x", "limit=1&limit=2",
        "updated_since=2026-01-05T09:00:00Z",
        "status=", "status=Running", "status=nonsense", "active=yes", "active=1", "active=",
        "updatedSince=", "updatedSince=yesterday", "updatedSince=1767603600", "updatedSince=2026-01-05",
        "updatedSince=2026-01-05T09:00:00", "updatedSince=2026-02-30T09:00:00Z", "updatedSince=2026-01-05T25:00:00Z",
        "updatedSince=2026-01-05T09:00:00+01:00", "cursor=", "cursor=AAAA", "cursor=AAAAAAAAAAAAAAAAAAAA",
        "cursor=%F0%9F%8E%A1",
    ],
)  # fmt: skip
async def test_an_invalid_parameter_is_rejected(tmp_path: Path, query: str) -> None:
    async with Simulation(scenario(tmp_path)).client() as client:
        assert problem(await client.get(f"{JOBS}?{query}")) == (400, "INVALID_PARAMETER")


@pytest.mark.parametrize(
    "time",
    ["2026-01-05T09:00:00Z", "2026-01-05t09:00:00.123456789z", "2026-01-05T23:59:60Z", "0001-01-01T00:00:00%2B23:59",
     "9999-12-31T23:59:59-23:59", "2026-01-05T10:00:00%2B01:00"],
)  # fmt: skip
async def test_every_time_format_of_the_standard_is_accepted(tmp_path: Path, time: str) -> None:
    async with Simulation(scenario(tmp_path)).client() as client:
        assert (await client.get(f"{JOBS}?updatedSince={time}")).status_code == 200


async def test_a_cursor_is_valid_only_for_its_own_list(tmp_path: Path) -> None:
    simulation, other = Simulation(scenario(tmp_path), seed=1), Simulation(scenario(tmp_path), seed=2)
    for _ in range(4):
        simulation.engine.trigger("mail")
    async with simulation.client() as client, other.client() as stranger:
        cursor = (await client.get(JOBS, params={"limit": 2})).json()["nextCursor"]
        assert (await client.get(JOBS, params={"cursor": cursor})).status_code == 200
        bad = [
            await client.get(JOBS, params={"cursor": cursor, "active": "true"}),
            await client.get(JOBS, params={"cursor": cursor, "updatedSince": "2026-01-05T09:00:00Z"}),
            await client.get("/api/v1/projects", params={"cursor": cursor}),
            await client.get(JOBS, params={"cursor": cursor[::-1]}),
            await stranger.get(JOBS, params={"cursor": cursor}),
        ]
    assert [problem(response) for response in bad] == [(400, "INVALID_PARAMETER")] * 5


async def test_an_etag_changes_with_the_items_and_not_with_the_clock(tmp_path: Path) -> None:
    simulation = Simulation(scenario(tmp_path))
    async with simulation.client() as client:
        first = await client.get(JOBS)
        await simulation.after(3600)
        known = {"If-None-Match": f'"other", W/{first.headers["ETag"]}'}
        unchanged = await client.get(JOBS, headers=known)
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert unchanged.headers["ETag"] == first.headers["ETag"]
        assert parsedate_to_datetime(unchanged.headers["Date"]) == datetime(2026, 1, 5, 10, tzinfo=UTC)
        simulation.engine.trigger("mail")
        changed = await client.get(JOBS, headers=known)
        assert (changed.status_code, len(changed.json()["items"])) == (200, 1)
        assert changed.headers["ETag"] != first.headers["ETag"]


async def test_every_path_except_health_requires_the_token(tmp_path: Path) -> None:
    async with Simulation(scenario(tmp_path)).client(token="cxg_right") as client:
        assert (await client.get("/health")).status_code == 200
        for header in (None, "Bearer cxg_wrong", "Bearer ", "cxg_right", "Basic cxg_right", "Bearer cxg_right "):
            headers = {} if header is None else {"Authorization": header}
            response = await client.get("/api/v1/projects", headers=headers)
            if header == "Bearer cxg_right ":  # the trailing space is not part of the header's value
                assert response.status_code in (200, 401)
            else:
                assert problem(response) == (401, "UNAUTHORIZED")
        assert problem(await client.get("/api/v1/nothing")) == (401, "UNAUTHORIZED")
        good = {"Authorization": "Bearer cxg_right"}
        assert (await client.get("/api/v1/projects", headers=good)).status_code == 200


async def test_every_error_response_has_a_date_and_the_format_of_an_error(tmp_path: Path) -> None:
    async with Simulation(scenario(tmp_path)).client() as client:
        refused = {
            (404, "NOT_FOUND"): [
                await client.get("/"),
                await client.get("/api/v1/projects/"),
                await client.get("/api/v1/projects/nobody/jobs"),
                await client.get("/api/v1/jobs/nobody"),
                await client.get("/api/v1/jobs/nobody/records"),
                await client.post("/api/v1/public/trigger/nobody"),
            ],
            (405, "METHOD_NOT_ALLOWED"): [
                await client.post("/health"),
                await client.get("/api/v1/public/trigger/mail"),
            ],
        }
    for expected, responses in refused.items():
        for response in responses:
            assert problem(response) == expected
            assert response.headers["Date"] == "Mon, 05 Jan 2026 09:00:00 GMT"
    assert refused[405, "METHOD_NOT_ALLOWED"][1].headers["Allow"] == "POST"


async def test_an_internal_error_does_not_reveal_its_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Engine) -> None:
        raise RuntimeError("+1-202-555-0100 is personal data")

    monkeypatch.setattr(Engine, "plan", property(broken))
    engine = Engine(scenario(tmp_path), timeline=ManualTimeline())
    transport = httpx.ASGITransport(create_app(engine, run_engine=False), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://runtime") as client:
        response = await client.get("/api/v1/usage")
    assert problem(response) == (500, "INTERNAL")
    assert response.headers["Date"] == "Mon, 05 Jan 2026 09:00:00 GMT"
    assert "555" not in response.text


async def test_a_trigger_starts_a_run_until_the_plan_is_full(tmp_path: Path) -> None:
    simulation = Simulation(
        scenario(tmp_path, plan={"name": "starter", "jobs_month": {"limit": 1}, "spinner_limit": 3})
    )
    async with simulation.client() as client:
        response = await client.post("/api/v1/public/trigger/mail")
        assert response.status_code == 201
        job = (await client.get(f"/api/v1/jobs/{response.json()['jobId']}")).json()
        assert (job["trigger"], job["status"]) == ("api", "queued")
        assert problem(await client.post("/api/v1/public/trigger/mail")) == (403, "PLAN_LIMIT")
        first_of_february = "2026-02-01T00:00:00.000Z"
        assert (await client.get("/api/v1/usage")).json() == {
            "plan": "starter",
            "meters": [
                {"name": "jobs_month", "used": 1, "limit": 1, "resetsAt": first_of_february},
                {"name": "records_month", "used": 10, "limit": None, "resetsAt": first_of_february},
                {"name": "spinners", "used": 1, "limit": 3, "resetsAt": None},
            ],
        }


async def test_health_reports_a_runtime_that_is_down_and_its_last_heartbeat(tmp_path: Path) -> None:
    simulation = Simulation(scenario(tmp_path))
    engine = await simulation.after(100)
    engine.take_runtime_down()
    await simulation.after(1000)
    async with simulation.client() as client:
        assert (await client.get("/health")).json() == {
            "status": "degraded",
            "runtime": {"status": "down", "lastHeartbeatAt": "2026-01-05T09:01:30.000Z", "workers": 0},
        }
        engine.bring_runtime_up()
        assert (await client.get("/health")).json() == {
            "status": "ok",
            "runtime": {"status": "up", "lastHeartbeatAt": "2026-01-05T09:18:20.000Z", "workers": 1},
        }


async def test_requests_over_the_limit_are_rejected_for_a_while(tmp_path: Path) -> None:
    simulation = Simulation(scenario(tmp_path, api={"requests_per_second": 2}))
    async with simulation.client() as client:
        codes = [(await client.get("/api/v1/projects")).status_code for _ in range(3)]
        assert codes == [200, 200, 429]
        refused = await client.get("/api/v1/usage")
        assert problem(refused) == (429, "RATE_LIMITED")
        assert refused.headers["Retry-After"] == "1"
        assert (await client.get("/health")).status_code == 200
        await simulation.after(1)
        assert [(await client.get("/api/v1/projects")).status_code for _ in range(3)] == [200, 200, 429]


async def test_the_application_runs_its_engine_during_its_lifespan(tmp_path: Path) -> None:
    simulation = Simulation(scenario(tmp_path))
    app = create_app(simulation.engine)
    job = simulation.engine.trigger("mail")
    run = simulation.engine.jobs[job]
    async with app.router.lifespan_context(app):
        await simulation.timeline.advance(200)
        assert run.ended_at == 101  # without an access: the application runs the engine
