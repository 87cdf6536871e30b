"""The doctor: its report about a connection that works, and about each problem that a connection can have."""

import json
import re
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from exporter.config import Config, RuntimeConfig, load
from exporter.config.api_description import TimeFormat
from exporter.doctor.diagnosis import Diagnosis
from exporter.doctor.effects import ABSENT_EFFECTS, EFFECTS, REQUIRED
from exporter.doctor.examination import examine
from exporter.doctor.stalls import stall_detection
from exporter.metrics import catalogue
from exporter.runtime.mapping import FIELDS
from exporter.runtime.rate_limits import allowance
from exporter.runtime.statuses import propose
from exporter.status import Status
from tests.builders import NOON, Clock, counts, only_runtime, resources, snapshot
from tests.command_line import run
from tests.connecting.server import TOKEN, OddRuntime, serving
from tests.connecting.test_connecting import EXAMPLE
from tests.faults.server import Exchange, FaultyRuntime
from tests.faults.test_paging import NUMBERS, OFFSETS, Server, described
from tests.scripted import ScriptedRuntime, rfc3339
from tests.stack.programs import free_port, runtime


def test_a_runtime_that_follows_the_contract_passes(tmp_path: Path) -> None:
    with runtime(tmp_path) as url:
        checked = run("doctor", "--runtime.base-url", url)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "FAIL" not in checked.stdout
    for line in ("ok    health: responds; the runtime is up", "ok    clocks: in sync", "ok    full read: succeeded"):
        assert line in checked.stdout, f"{line!r} is not in\n{checked.stdout}"
    assert "ok    stall detection: possible" in checked.stdout
    assert "records.completed" in checked.stdout
    assert "API requests per hour" in checked.stdout


def test_json_contains_the_same(tmp_path: Path) -> None:
    with runtime(tmp_path) as url:
        result = json.loads(run("doctor", "--runtime.base-url", url, "--json").stdout)
    assert result["ok"] is True
    report = result["runtimes"][url.removeprefix("http://")]
    assert report["ok"] is True
    assert report["runs"] > 5
    assert report["series"] > 100
    # Health, usage, and the changes of all projects: the requests of a scrape without a sweep.
    assert 3 * 240 <= report["requests_per_hour"] < 6 * 240
    completed = next(
        each for each in report["fields"] if (each["resource"], each["field"]) == ("jobs", "records.completed")
    )
    assert completed["found"] == completed["items"] > 5


def test_what_the_exporter_needs_itself_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "good.yml").write_text("basic_auth_users: {}")
    (tmp_path / "bad.yml").write_text("nonsense: 1")
    good = {"web": {"config_file": str(tmp_path / "good.yml")}, "storage": {"path": str(tmp_path / "state")}}
    found = {}
    with runtime(tmp_path) as url:
        for name, sections in {
            "good": good,
            "absent": good | {"web": {"config_file": "/nowhere.yml"}},
            "bad": good | {"web": {"config_file": str(tmp_path / "bad.yml")}},
            "unwritable": good | {"storage": {"path": "/proc/x"}},
        }.items():
            (tmp_path / "exporter.yml").write_text(yaml.safe_dump({"runtime": {"base_url": url}, **sections}))
            as_text = run("doctor", f"--config.file={tmp_path / 'exporter.yml'}")
            as_json = run("doctor", f"--config.file={tmp_path / 'exporter.yml'}", "--json")
            report = json.loads(as_json.stdout)
            assert report["ok"] == (name == "good")
            assert as_text.returncode == as_json.returncode == (0 if name == "good" else 1)
            assert all(each["ok"] for each in report["runtimes"].values()), "it is examined all the same"
            found[name] = as_text.stdout.partition("\n\nexporter\n")[2].splitlines()
            marks = {True: "ok  ", False: "FAIL"}
            assert found[name] == [
                f"{marks[each['ok']]}  {each['what']}: {each['finding']}" for each in report["checks"]
            ]
    assert not (tmp_path / "state").exists()
    web, storage = "ok    web.config_file: can be used", "ok    storage.path: can be used"
    assert found == {
        "good": [web, storage],
        "absent": ["FAIL  web.config_file: /nowhere.yml: cannot be read: No such file or directory", storage],
        "bad": [f"FAIL  web.config_file: {tmp_path}/bad.yml: nonsense: {UNKNOWN_KEY}", storage],
        "unwritable": [web, "FAIL  storage.path: /proc/x: cannot be used: No such file or directory"],
    }


UNKNOWN_KEY = "unknown key; known are tls_server_config, http_server_config, basic_auth_users"


async def test_no_personal_data_of_a_response_is_printed() -> None:
    clock = Clock(time.time())
    scripted = ScriptedRuntime(clock)
    scripted.put(
        createdAt=clock() - 60,
        startedAt=clock() - 60,
        status="waits for +49 151 2345678",
        trigger="Ann Smith",
        failures=[
            {"step": "Mail", "errorCode": "no such address: ann@example.com", "count": 1, "message": "Ann Smith"}
        ],
        records={"total": 2, "completed": 1, "failed": 1},
    )
    scripted.put("odd", parentJobId={"name": "Ann Smith"}, records={"waiting": "Ann Smith"})
    scripted.failed_records["run-1"] = [
        {"id": "ann@example.com", "status": "failed", "failedStep": {"name": "Mail"}, "errorCode": "Ann Smith"},
        {
            "id": "+491512345678",
            "status": "failed",
            "failedStep": {"name": "Call 0151 2345678"},
            "endedAt": "0151 2345678",
        },
    ]
    async with FaultyRuntime(scripted).serving() as url:
        diagnosis = await examine(only_runtime(load(None, environ={"SPINNER_EXPORTER_RUNTIME_BASE_URL": url})))
    assert [check.what for check in diagnosis.checks if check.ok is False] == []
    for text in (diagnosis.as_text(), json.dumps(diagnosis.as_tree())):
        for secret in ("Ann", "ann@", "Smith", "example.com", "2345678"):
            assert secret not in text, text
    shown = {each.field: each.example for each in diagnosis.fields}
    assert shown["failures"] == '[{"step": "Mail", "errorCode": "other",…'
    assert shown["errorCode"] == shown["trigger"] == "other"


def test_an_unreachable_runtime_is_reported_in_one_line() -> None:
    checked = run("doctor", "--runtime.base-url", f"http://127.0.0.1:{free_port()}")
    assert checked.returncode == 1
    assert "FAIL  health: no response (connection refused)" in checked.stdout
    assert "Traceback" not in checked.stdout + checked.stderr


async def odd_diagnosis(folder: Path, odd: OddRuntime, **resources: Any) -> Diagnosis:
    """Check the deployment of docs/connecting.md, with parts of its description replaced."""
    (folder / "token").write_text(TOKEN)
    with serving(odd.app()) as url:
        described = {
            name: {**EXAMPLE["runtime"]["resources"][name], **more} if isinstance(more, dict) else more
            for name, more in resources.items()
        }
        tree = {
            "runtime": {
                **EXAMPLE["runtime"],
                "base_url": f"{url}/automation",
                "token_file": str(folder / "token"),
                "resources": {**EXAMPLE["runtime"]["resources"], **described},
            },
        }
        (folder / "exporter.yml").write_text(yaml.safe_dump(tree))
        return await examine(only_runtime(load(folder / "exporter.yml", environ={})))


def check(diagnosis: Diagnosis, what: str) -> Any:
    (found,) = (each for each in diagnosis.checks if each.what == what)
    return found


async def test_a_described_deployment_passes_and_the_effect_of_each_missing_field_is_shown(tmp_path: Path) -> None:
    found = await odd_diagnosis(tmp_path, OddRuntime())
    assert found.ok, found.as_text()
    assert check(found, "usage").finding == "absent: no plan meters, and no alert before PLAN_LIMIT"
    assert "behind this one; the exporter corrects for it" in check(found, "clocks").finding, (
        "its clock does not advance"
    )
    effects = {(each.resource, each.field): each.effect for each in found.fields}
    assert effects["jobs", "records.completed"] == "none: it is counted from the records"
    assert effects["jobs", "endedAt"] == "none: only runs that have ended have one"


async def test_the_effect_of_runs_without_counts_is_shown(tmp_path: Path) -> None:
    found = await odd_diagnosis(tmp_path, OddRuntime(), counts="job")
    effects = {(each.resource, each.field): each.effect for each in found.fields}
    assert effects["jobs", "records.completed"].startswith("no spinner_run_progress_ratio, and no stall detection")
    assert check(found, "stall detection").warns
    assert check(found, "stall detection").finding == (
        "no record counts: no progress and no stall detection for 2 of 2 runs in the first response, of Flow 1, "
        "Flow 2; their status, duration and expected interval are watched"
    )
    assert effects["jobs", "lastProgressAt"].startswith("the exporter's own observations are used")


async def test_a_missing_required_field_fails(tmp_path: Path) -> None:
    fields = {**EXAMPLE["runtime"]["resources"]["jobs"]["fields"], "id": "nothing"}
    found = await odd_diagnosis(tmp_path, OddRuntime(), jobs={"fields": fields})
    assert not found.ok
    assert check(found, "jobs").finding == "none of 2 items is usable: `id` is missing (fields.id finds nothing)"
    del fields["id"]
    found = await odd_diagnosis(tmp_path, OddRuntime(), jobs={"fields": fields})
    assert check(found, "jobs").finding == "none of 2 items is usable: `id` is missing (map it under fields.id)"
    assert next(each.effect for each in found.fields if (each.resource, each.field) == ("jobs", "id")) == "required"


async def test_counts_that_would_be_ignored_are_named(tmp_path: Path) -> None:
    described = EXAMPLE["runtime"]["resources"]["jobs"]["fields"]
    found = await odd_diagnosis(
        tmp_path, OddRuntime(), jobs={"fields": {**described, "records.completed": "'45/120'"}}, counts="job"
    )
    jobs = check(found, "jobs")
    assert jobs.ok
    assert "; records.completed of 2 cannot be right and would be ignored" in jobs.finding


async def test_unknown_labels_are_listed_with_a_proposed_status(tmp_path: Path) -> None:
    odd = OddRuntime()
    odd.executions[0]["state"] = "Completed-ish"
    odd.executions[1]["state"] = "Zurückgestellt"
    found = await odd_diagnosis(tmp_path, odd)
    assert found.labels == {"Completed-ish": "completed", "Zurückgestellt": None}
    proposed = yaml.safe_load("statuses:" + found.as_text().split("statuses:")[1].split("\n\n")[0])
    assert proposed == {"statuses": {"Completed-ish": "completed", "Zurückgestellt": None}}


async def test_labels_that_only_later_pages_have_are_listed(tmp_path: Path) -> None:
    odd = OddRuntime()
    odd.executions[4]["state"] = "jammed"
    found = await odd_diagnosis(tmp_path, odd)
    assert found.labels == {"jammed": None}


def test_the_spinners_without_stall_detection_are_named() -> None:
    runs = [snapshot(f"run-{number}", spinner=f"Flow {number}") for number in range(5)]
    runs += [
        snapshot("queued", Status.QUEUED),
        snapshot("counted", records=counts()),
        snapshot("says", last_progress_at=NOON),
    ]
    finding = stall_detection(runs).finding
    assert "for 5 of 8 runs in the first response, of Flow 0, Flow 1, Flow 2 and 2 more;" in finding
    assert stall_detection(runs[5:]).finding == "possible"


async def test_local_times_with_daylight_saving_are_warned_of(tmp_path: Path) -> None:
    found = await odd_diagnosis(tmp_path, OddRuntime())
    finding = check(found, "local times").finding
    assert finding.startswith("jobs.startedAt have no offset and are read as Europe/Berlin")
    assert "\nwarn  local times: jobs.startedAt" in found.as_text()
    fields = {**EXAMPLE["runtime"]["resources"]["jobs"]["fields"], "startedAt": {"path": "t.begun", "convert": "local"}}
    found = await odd_diagnosis(tmp_path, OddRuntime(), jobs={"fields": fields})
    assert "local times" not in [each.what for each in found.checks], "UTC has no hour that comes twice"


async def test_a_wrong_path_and_a_wrong_field_fail(tmp_path: Path) -> None:
    found = await odd_diagnosis(
        tmp_path, OddRuntime(), projects={"path": "/nowhere"}, health={"fields": {"status": "x"}}
    )
    assert not found.ok
    assert check(found, "projects").finding == "HTTP 404: not found (GET /automation/nowhere)"
    assert check(found, "health").ok is False
    nothing = "responds with none of the fields, so that it is not known whether the runtime is up"
    assert check(found, "health").finding == nothing
    found = await odd_diagnosis(tmp_path, OddRuntime(), health={"fields": {"status": "'ok'"}})
    assert check(found, "health").finding == "responds without runtime.status, so the runtime counts as down"


async def test_what_could_not_be_checked_is_not_ok(tmp_path: Path) -> None:
    found = await odd_diagnosis(tmp_path, OddRuntime(), projects={"path": "/nowhere"})
    skipped = {each.what: each.finding for each in found.checks if each.ok is None}
    assert skipped == {
        "jobs": "not requested: the projects cannot be read",
        "job": "not requested: no run can be read",
        "records": "not requested: no run can be read",
    }
    assert "skip  jobs: not requested" in found.as_text()


async def test_a_runtime_without_runs_passes_and_skips_what_needs_one(tmp_path: Path) -> None:
    odd = OddRuntime()
    odd.executions.clear()
    found = await odd_diagnosis(tmp_path, odd)
    assert found.ok, found.as_text()
    assert [each.what for each in found.checks if each.ok is None] == ["jobs", "job", "records", "ids of runs", *LISTS]
    assert check(found, "jobs").finding == (
        "no run in 5 projects, such as Workspace 1; without one, fields and statuses are not checked"
    )
    assert check(found, "job").finding == "not requested: there is no run"


LISTS = ("records in flight", "waiting records")


async def test_a_list_without_items_is_not_ok_and_has_no_table() -> None:
    scripted = ScriptedRuntime(Clock(time.time()))
    scripted.put(createdAt=time.time() - 60, startedAt=None, status="queued")
    async with FaultyRuntime(scripted).serving() as url:
        diagnosis = await examine(Config(runtime=RuntimeConfig(base_url=url, resources=resources())))
    assert diagnosis.ok, diagnosis.as_text()
    none = "0 items in the first response; without one, its fields are not checked"
    for what in ("records", "usage"):
        assert (check(diagnosis, what).ok, check(diagnosis, what).finding) == (None, none)
    assert {each.resource for each in diagnosis.fields} == {"health", "projects", "jobs"}
    stalls = check(diagnosis, "stall detection")
    assert (stalls.ok, stalls.finding) == (None, "no run in the first response has started")


async def test_a_filter_that_the_api_ignores_is_said() -> None:
    clock = Clock(time.time())
    scripted = ScriptedRuntime(clock)
    numbers = {"total": 4, "completed": 1, "failed": 1, "running": 1, "waiting": 1}
    scripted.put(createdAt=clock() - 60, startedAt=clock() - 60, records=numbers)
    found = {}
    statuses = ["completed", "failed", "running", "waiting"]

    def answer(request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith("/records"):
            return None
        wanted = request.url.params.get("status")
        sent = statuses if ignores or wanted is None else [wanted]
        items = [{"id": f"r{number}", "status": each} for number, each in enumerate(sent)]
        return httpx.Response(200, json={"items": items, "nextCursor": None})

    scripted.interfere = answer
    for ignores in (False, True):
        async with FaultyRuntime(scripted).serving() as url:
            diagnosis = await examine(Config(runtime=RuntimeConfig(base_url=url, resources=resources())))
        found[ignores] = {
            what: (check(diagnosis, what).ok, check(diagnosis, what).finding) for what in ("failed records", *LISTS)
        }
        assert diagnosis.ok != ignores
    assert set(found[False].values()) == {(True, "listed by the runtime")}
    ignored = "the filter seems to be ignored: records of other statuses came back ({}), which {}; describe the API's"
    costs = "are not shown, and cost requests"
    for what, ok, others, effect in (
        ("failed records", False, "completed, running, waiting", "would be named as failed"),
        ("records in flight", True, "completed, failed, waiting", costs),
        ("waiting records", True, "completed, failed, running", costs),
    ):
        assert found[True][what][0] is ok
        assert f"{'warn' if ok else 'FAIL'}  {what}: the filter" in diagnosis.as_text()
        assert found[True][what][1].startswith(ignored.format(others, effect))


class IgnoringRuntime(ScriptedRuntime):
    """Has a run that goes on, one that ended two hours ago, and records that failed; ignores some query parameters."""

    lists_all_projects = lists_all_runs = True

    def __init__(self, *ignored: str) -> None:
        super().__init__(Clock(time.time()))
        now, self.ignored = self.clock(), ignored
        self.projects |= {"p2": "Support"}
        self.put(createdAt=now - 60, startedAt=now - 50, records={"total": 2, "failed": 1})
        old = {"createdAt": now - 7300, "startedAt": now - 7300, "endedAt": now - 7200, "status": "completed"}
        self.put("old", updated_at=now - 7200, records={"total": 2, "failed": 1, "completed": 1}, **old)
        for job, age in (("run-1", 5), ("old", 7200)):
            self.failed_records[job] = [{"id": f"of {job}", "status": "failed", "endedAt": rfc3339(now - age)}]

    def _jobs(self, project_id: str | None, query: httpx.QueryParams) -> list[dict[str, Any]]:
        return super()._jobs(project_id, self._obeyed(query))

    def all_failed_records(self, query: httpx.QueryParams) -> list[dict[str, Any]]:
        found = super().all_failed_records(httpx.QueryParams({"updatedSince": rfc3339(0)}).merge(self._obeyed(query)))
        others = [{**each, "id": "other", "status": "completed"} for each in found]
        return found if "status" in self._obeyed(query) else [*found, *others]

    def _obeyed(self, query: httpx.QueryParams) -> httpx.QueryParams:
        return httpx.QueryParams({key: value for key, value in query.items() if key not in self.ignored})


RUN_FILTERS = ("runs that have not ended", "runs that changed")
OF_ALL = (*(f"{each}, of all projects" for each in RUN_FILTERS), "failed records of all runs")

ACTIVE = (
    "warn  {}: the filter seems to be ignored: 1 of 2 runs have ended, which change no count, and cost requests with "
    "each sweep (sync.sweep_interval); describe the API's filter, or set jobs.active: ~"
)
CHANGED = (
    "warn  {}: the filter seems to be ignored: 1 of 2 runs ended and changed long before the time that was asked for, "
    "which change no count, and cost requests with each scrape; describe the API's filter, or set jobs.changed: ~"
)
FAILED_SINCE = (
    "warn  {}: the filter by time seems to be ignored: 1 of 2 records failed long before the time that was asked for, "
    "which change no count, and cost requests; describe the API's filter, or set records.across: ~"
)
FAILED = (
    "FAIL  {}: the filter seems to be ignored: records of other statuses came back (completed), which would be named "
    "as failed; describe the API's filter, or set records.failed: ~"
)


@pytest.mark.parametrize(
    ("ignored", "findings"),
    [
        ("active", {RUN_FILTERS[0]: ACTIVE, OF_ALL[0]: ACTIVE}),
        ("updatedSince", {RUN_FILTERS[1]: CHANGED, OF_ALL[1]: CHANGED, OF_ALL[2]: FAILED_SINCE}),
        ("status", {OF_ALL[2]: FAILED}),
    ],
)
async def test_a_filter_of_runs_or_of_the_records_of_all_runs_that_is_ignored_is_said(
    ignored: str, findings: dict[str, str]
) -> None:
    async with FaultyRuntime(IgnoringRuntime(ignored)).serving() as url:
        diagnosis = await examine(Config(runtime=RuntimeConfig(base_url=url, resources=resources())))
    lines = diagnosis.as_text().splitlines()
    for name in (*RUN_FILTERS, *OF_ALL):
        assert findings.get(name, "ok    {}: listed by the runtime").format(name) in lines


async def test_filters_of_runs_and_of_the_records_of_all_runs_that_are_obeyed_are_fine() -> None:
    runtime = IgnoringRuntime()
    async with FaultyRuntime(runtime).serving() as url:
        diagnosis = await examine(Config(runtime=RuntimeConfig(base_url=url, resources=resources())))
        found = {each: check(diagnosis, each) for each in (*RUN_FILTERS, *OF_ALL)}
        assert {(each.ok, each.warns, each.finding) for each in found.values()} == {
            (True, False, "listed by the runtime")
        }
        # Nothing is there that a filter could leave out.
        del runtime.jobs["old"], runtime.failed_records["old"]
        diagnosis = await examine(Config(runtime=RuntimeConfig(base_url=url, resources=resources())))
    for each, unseen in zip(
        (*RUN_FILTERS, *OF_ALL),
        (*("no run that has ended", "no run that changed long before") * 2, "none that failed long before"),
        strict=True,
    ):
        assert check(diagnosis, each).finding == (
            f"listed by the runtime; {unseen} was seen, so whether the API selects them is not checked"
        )


async def test_a_list_of_all_runs_that_cannot_be_used_is_a_warning_as_long_as_runs_can_be_read_alone() -> None:
    runtime = IgnoringRuntime()
    runtime.interfere = lambda request: httpx.Response(500) if request.url.path == "/api/v1/records" else None
    async with FaultyRuntime(runtime).serving() as url:
        diagnosis = await examine(Config(runtime=RuntimeConfig(base_url=url, resources=resources())))
    found = check(diagnosis, OF_ALL[2])
    assert (diagnosis.ok, found.warns) == (True, True)
    assert found.finding == "HTTP 500 (GET /api/v1/records); those of each run are read instead"


async def test_a_run_that_goes_on_may_come_back_and_a_coarse_time_may_be_a_day_ago() -> None:
    """Not all APIs say when an open run changed; and a format of times can have no time of day."""
    runtime = IgnoringRuntime("updatedSince")
    runtime.put("run-1", updated_at=runtime.clock() - 7200)
    jobs = msgspec.structs.replace(resources().jobs, since=TimeFormat(format="%Y-%m-%dT%H:%M:%S%z"))
    described = msgspec.structs.replace(resources(), jobs=jobs)
    async with FaultyRuntime(runtime).serving() as url:
        exact = await examine(Config(runtime=RuntimeConfig(base_url=url, resources=resources())))
        coarse = await examine(Config(runtime=RuntimeConfig(base_url=url, resources=described)))
    assert "1 of 2 runs ended and changed" in check(exact, RUN_FILTERS[1]).finding
    assert not check(coarse, RUN_FILTERS[1]).warns


async def test_a_list_that_is_described_without_a_filter_ignores_none(tmp_path: Path) -> None:
    found = await odd_diagnosis(tmp_path, OddRuntime(), records={"running": {}, "waiting": {}})
    for what in LISTS:
        assert (check(found, what).warns, check(found, what).finding) == (False, "selected from all records of the run")


@pytest.mark.parametrize(
    ("numbers", "answer", "ok", "finding"),
    [
        ({"total": 1, "failed": 1}, ["failed"], True, "listed by the runtime; no run with others was seen, so whether"),
        ({"total": 2, "failed": 1}, ["failed", "cancelled"], True, "listed by the runtime"),
        ({"total": 2, "failed": 1}, [], None, "the list is empty, although a run has some: whether the API selects"),
        ({"total": 2, "failed": 1}, [None], None, "none of 1 says that its status is failed: whether the API selects"),
        ({"total": 2, "failed": 1}, 400, False, "HTTP 400 (GET /api/v1/jobs/run-1/records)"),
        ({"total": 2, "waiting": 1}, 400, True, "how many wait is shown, and not which: the runtime does not list"),
        ({"total": 2, "running": 1}, 404, None, "the runtime does not list them: HTTP 404: not found (GET /api/v1"),
    ],
)
async def test_what_a_list_of_records_of_one_status_does_not_show_is_not_ok(
    numbers: dict[str, int], answer: Any, ok: bool | None, finding: str
) -> None:
    clock = Clock(time.time())
    scripted = ScriptedRuntime(clock)
    scripted.put(createdAt=clock() - 60, startedAt=clock() - 60, records=numbers)

    def answered(request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith("/records") or "status" not in request.url.params:
            return None
        if isinstance(answer, int):
            return httpx.Response(answer)
        items = [{"id": f"r{number}", "status": each} for number, each in enumerate(answer)]
        return httpx.Response(200, json={"items": items, "nextCursor": None})

    scripted.interfere = answered
    async with FaultyRuntime(scripted).serving() as url:
        diagnosis = await examine(Config(runtime=RuntimeConfig(base_url=url, resources=resources())))
    names = {"failed": "failed records", "running": "records in flight", "waiting": "waiting records"}
    (what,) = (name for key, name in names.items() if key in numbers)
    found = check(diagnosis, what)
    assert found.ok is ok, found
    assert found.finding.startswith(finding)


@pytest.mark.parametrize(
    ("path", "hint"),
    [("/x/api/v1/", "both have /api/v1, so remove it from one of them"), ("/a/v1", "check runtime.base_url")],
)
async def test_paths_are_printed_with_that_of_the_base_url_and_a_doubled_part_is_named(path: str, hint: str) -> None:
    scripted = ScriptedRuntime(Clock(time.time()))
    scripted.interfere = lambda request: httpx.Response(404)
    async with FaultyRuntime(scripted).serving() as url:
        described = RuntimeConfig(base_url=f"{url}{path}", resources=resources(), query={"key": "hunter2"})
        diagnosis = await examine(Config(runtime=described))
    assert check(diagnosis, "health").finding == f"HTTP 404: not found (GET {path.rstrip('/')}/health)"
    base = check(diagnosis, "base_url")
    joined = "the API has none of the paths: each is base_url joined with the path of a resource; "
    assert (base.ok, base.finding) == (None, joined + hint)
    assert "hunter2" not in diagnosis.as_text()


async def test_a_single_path_that_is_not_found_is_no_hint_at_the_base_url(tmp_path: Path) -> None:
    found = await odd_diagnosis(tmp_path, OddRuntime(), projects={"path": "/nowhere"})
    assert "base_url" not in [each.what for each in found.checks]


async def test_one_cause_fails_one_check() -> None:
    config = Config(runtime=RuntimeConfig(base_url=f"http://127.0.0.1:{free_port()}", resources=resources()))
    diagnosis = await examine(config)
    assert not diagnosis.ok
    assert [each.what for each in diagnosis.checks if each.ok is False] == ["health"]
    reasons = {each.what: each.finding for each in diagnosis.checks if each.ok is None}
    assert reasons["projects"].startswith("not checked: no response (")
    assert reasons["projects"].endswith(", as for health")
    assert reasons["usage"] == "not requested: the runtime does not respond"
    assert reasons["jobs"] == "not requested: the projects cannot be read"


async def test_runs_that_cannot_be_read_are_not_reported_as_no_runs(tmp_path: Path) -> None:
    found = await odd_diagnosis(tmp_path, OddRuntime(), jobs={"path": "/executions/lost"})
    assert "HTTP 404: not found (POST /automation/executions/lost)" in check(found, "jobs").finding
    assert check(found, "records").finding == "not requested: no run can be read"


async def test_a_project_that_cannot_be_read_fails_with_its_name_and_reason(tmp_path: Path) -> None:
    # The first two pages, of two items each, are the only ones that are checked alone.
    odd = OddRuntime()
    odd.executions[3]["state"] = odd.executions[4]["state"] = "RUN"
    odd.fails_from_page = 2
    found = await odd_diagnosis(tmp_path, odd)
    assert check(found, "full read").finding == (
        "project Workspace 1 fails: jobs: HTTP 403: the token may not read this "
        f"(from runtime.token_file: {tmp_path / 'token'})"
    )
    assert found.requests_per_hour is None, "the costs of a partial read would be too low"
    assert not found.ok


async def test_a_url_in_place_of_a_cursor_fails_with_the_style_to_use(tmp_path: Path) -> None:
    paging = {"style": "cursor", "parameter": "page.skip", "next": "next"}
    odd = OddRuntime()
    for link in ("https://jobs.example.com/search?skip=2", "/search?skip=2"):
        odd.next_link = link
        jobs = check(await odd_diagnosis(tmp_path, odd, jobs={"paging": paging}), "jobs")
        assert (jobs.ok, jobs.finding.partition("; ")[2]) == (
            False,
            "the next page is a URL: use paging: {style: link, next: …}",
        )


async def test_a_heartbeat_that_is_expected_and_missing_has_the_effect_that_the_runtime_counts_as_down(
    tmp_path: Path,
) -> None:
    described = EXAMPLE["runtime"]["resources"]["health"]["fields"]
    without = {key: value for key, value in described.items() if key != "runtime.lastHeartbeatAt"}
    effects = {}
    for fields in (without, {**without, "runtime.lastHeartbeatAt": "nothing"}):
        found = await odd_diagnosis(tmp_path, OddRuntime(), health={"fields": fields})
        (effect,) = (each.effect for each in found.fields if each.field == "runtime.lastHeartbeatAt")
        effects[check(found, "health").finding] = effect
    assert effects == {
        "responds; the runtime is up": "a runtime that is down is noticed only when the API reports it",
        f"responds; the runtime says that it is up; runtime.lastHeartbeatAt is missing{COUNTS_AS_DOWN}": (
            "the runtime counts as down"
        ),
    }


COUNTS_AS_DOWN = (
    "; after 180 s without a heartbeat (runtime.heartbeat_timeout) it counts as down: the worker service has stopped, "
    "or the description of runtime.lastHeartbeatAt is wrong, such as its zone"
)


@pytest.mark.parametrize(
    ("heartbeat", "health", "mark", "finding"),
    [
        (-4, {}, "ok  ", "the runtime is up; its last heartbeat is 4 s ago"),
        (-180, {}, "ok  ", "the runtime is up; its last heartbeat is 3 min ago"),
        (
            -5.5 * 3600,
            {},
            "FAIL",
            f"the runtime says that it is up; its last heartbeat is 5.5 h ago{COUNTS_AS_DOWN}",
        ),
        (
            2 * 3600,
            {},
            "warn",
            "the runtime is up; its last heartbeat is 2 h in the future, so how old it is is not known: check "
            "the zone and the unit of runtime.lastHeartbeatAt",
        ),
        # It says itself that it is down: that is no mistake of the config.
        (
            -5.5 * 3600,
            {"status": "down"},
            "warn",
            "the runtime says that it is down; its last heartbeat is 5.5 h ago; if it is up, the description of health "
            "is wrong, such as the labels of runtime.status",
        ),
        # Further ahead than any clock.
        (
            30 * 86400,
            {},
            "FAIL",
            "the runtime says that it is up; runtime.lastHeartbeatAt cannot be right and is ignored" + COUNTS_AS_DOWN,
        ),
    ],
)
async def test_the_runtime_is_up_only_with_a_heartbeat_that_the_exporter_accepts(
    heartbeat: float, health: dict[str, Any], mark: str, finding: str
) -> None:
    # By the API's clock, which is an hour ahead of this one.
    now = round(time.time()) + 3600
    scripted = ScriptedRuntime(Clock(now))
    scripted.health = {"runtime": {"status": "up", "lastHeartbeatAt": rfc3339(now + heartbeat)}, **health}
    async with FaultyRuntime(scripted).serving() as url:
        diagnosis = await examine(only_runtime(load(None, environ={"SPINNER_EXPORTER_RUNTIME_BASE_URL": url})))
    assert f"{mark}  health: responds; {finding}" in diagnosis.as_text().splitlines()
    assert diagnosis.ok == (mark != "FAIL")


@pytest.mark.parametrize(
    ("server", "paging", "ok", "finding"),
    [
        (Server(7), NUMBERS, True, "; the second page is empty"),
        (Server(7, beyond="null"), OFFSETS, True, "; the second page is empty"),
        (Server(7, beyond=404), NUMBERS, True, "; the second page is HTTP 404, which ends the list"),
        (Server(25), NUMBERS, True, ", 10 in the second; its pages have 10 items, not 50 (paging.size)"),
        (Server(25), NUMBERS | {"size": 10}, True, ", 10 in the second"),
        (
            Server(7, beyond="last"),
            NUMBERS,
            True,
            "; the second page repeats the first: the API ignores page, or there is only one",
        ),
        (
            Server(25, ignores=True),
            OFFSETS | {"size": 10},
            False,
            "; the second page repeats the first: the API ignores skip",
        ),
        (Server(25, beyond=403), NUMBERS | {"parameter": "p"}, True, "or there is only one"),
        (
            Server(10, beyond=403),
            NUMBERS,
            False,
            "; the second page fails: HTTP 403: the token may not read this (none is configured, neither with "
            "runtime.token_file nor with runtime.auth.login)",
        ),
        (
            Server(10, rest=lambda end, items: {"more": True}),
            {"style": "none", "more": "more"},
            False,
            "; the second page fails: the list has more pages, as paging.more says, and none could be read",
        ),
        (Server(7, rest=lambda end, items: {"total": items}), NUMBERS | {"total": "total"}, True, "first response"),
    ],
)
async def test_the_second_page_of_a_list_is_read_and_said_what_it_shows(
    server: Server, paging: dict[str, Any], ok: bool, finding: str
) -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.interfere = server
    async with FaultyRuntime(runtime).serving() as url:
        config = Config(runtime=RuntimeConfig(base_url=url, resources=described(paging)))
        found = check(await examine(config), "projects")
    assert found.ok is ok, found
    assert found.finding.endswith(finding)
    assert "items in the first response" in found.finding


@pytest.mark.parametrize(
    ("label", "status"),
    [
        ("Runing", "running"),
        ("Ruuning", "running"),
        ("all_done_now", "completed"),
        ("renewable", None),
        ("step_failed_hard", "failed"),
        ("is waiting for customer", "waiting"),
        ("purple", None),
        ("shipped", None),
    ],
)
def test_the_proposed_status_is_the_most_similar_one(label: str, status: str | None) -> None:
    proposed = propose(label)
    assert (proposed and proposed.value) == status


def test_every_field_is_required_or_has_an_effect_when_missing() -> None:
    required = {(resource, field) for resource, fields in REQUIRED.items() for field in fields}
    known = {(resource, field) for resource, fields in FIELDS.items() if resource != "job" for field in fields}
    assert not required & EFFECTS.keys()
    assert required | EFFECTS.keys() == known


def test_effects_name_existing_metrics() -> None:
    named = set(re.findall(r"spinner_\w+", " ".join((*EFFECTS.values(), *ABSENT_EFFECTS.values()))))
    assert named <= set(catalogue.names())


def test_it_says_from_which_lists_the_runs_are_read_and_what_that_costs(tmp_path: Path) -> None:
    found = []
    for flags in ([], ["--old-contract"]):
        with runtime(tmp_path, *flags) as url:
            result = json.loads(run("doctor", "--runtime.base-url", url, "--json").stdout)
        (report,) = result["runtimes"].values()
        checks = {each["what"]: each["finding"] for each in report["checks"]}
        found.append((checks["lists of runs"], checks["lists of failed records"], report["requests_per_hour"]))
    (new, new_records, cost), (old, old_records, old_cost) = found
    assert new_records == "one list of all runs"
    assert old_records == "one list per run: the runtime has none of all runs"
    assert new == "one list of all projects"
    assert old.startswith("one list per project: the runtime has none")
    assert cost < old_cost


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, "listed by the runtime"),
        ({"runtime": {"resources": {"records": {"waiting": None}}}}, "how many wait is shown, and not which: no list"),
        ({"limits": {"waiting_record_requests": 0}}, "how many wait is shown, and not which: the limits allow none"),
    ],
)
def test_it_says_whether_it_is_read_which_records_wait(tmp_path: Path, settings: dict[str, Any], found: str) -> None:
    (tmp_path / "exporter.yml").write_text(yaml.safe_dump({"runtime": {}} | settings))
    with runtime(tmp_path) as url:
        flags = [f"--config.file={tmp_path / 'exporter.yml'}", "--runtime.base-url", url, "--json"]
        (report,) = json.loads(run("doctor", *flags).stdout)["runtimes"].values()
    checks = {each["what"]: each["finding"] for each in report["checks"]}
    assert checks["waiting records"].startswith(found)


@pytest.mark.parametrize(("status", "shown"), [("healthy", "healthy"), (1, "1"), ("ann@example.com", "other")])
def test_a_status_that_is_neither_up_nor_down_is_said(tmp_path: Path, status: Any, shown: str) -> None:
    async def state(request: Request) -> JSONResponse:
        return JSONResponse({"worker": status})

    with serving(Starlette(routes=[Route("/state", state)])) as url:
        fields = {"runtime.status": {"path": "worker", "labels": {False: "down"}}}
        resources = {"health": {"path": "/state", "fields": fields}, "projects": "absent"}
        tree = {"runtime": {"base_url": url, "resources": resources}}
        (tmp_path / "exporter.yml").write_text(yaml.safe_dump(tree))
        ended = run("doctor", f"--config.file={tmp_path / 'exporter.yml'}")
    assert f'FAIL  health: responds; runtime.status is "{shown}", neither up nor down' in ended.stdout
    assert "ann@" not in ended.stdout


async def test_items_are_counted_before_and_after_some_are_left_out() -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.interfere = Server(20, hidden=lambda number: number % 3 == 0)
    async with FaultyRuntime(runtime).serving() as url:
        selected = described(NUMBERS, items="items[?kind == 'project']")
        found = check(await examine(Config(runtime=RuntimeConfig(base_url=url, resources=selected))), "projects")
    assert found.finding.startswith("10 items in the first response, of which items selects 6")


async def test_the_keys_that_items_have_instead_of_a_missing_one_are_named(tmp_path: Path) -> None:
    fields = {
        **EXAMPLE["runtime"]["resources"]["jobs"]["fields"],
        "createdAt": {"path": "t.made", "convert": "epoch_ms"},
        "dueAt": "due",
    }
    found = await odd_diagnosis(tmp_path, OddRuntime(), jobs={"fields": fields})
    instead = {each.field: each.instead for each in found.fields if each.resource == "jobs"}
    assert instead["createdAt"] == "t has queued, begun, took, touched"
    assert instead["dueAt"] == "the items have uid, flow, state, shard, t"
    assert instead["id"] == "", "it was found"
    assert instead["lastProgressAt"] == "", "it is not described"
    text = found.as_text()
    assert text.count("\njobs: t has queued, begun, took, touched\n") == 1
    assert text.count("the items have uid") == 1, "for two fields"


async def test_a_key_that_is_null_in_all_items_is_no_missing_key() -> None:
    scripted = ScriptedRuntime(Clock(time.time()))
    scripted.put(parentJobId=None, spinnerId="s1", dueAt=None)
    scripted.put("other", parentJobId=None)
    async with FaultyRuntime(scripted).serving() as url:
        diagnosis = await examine(Config(runtime=RuntimeConfig(base_url=url, resources=resources())))
    found = {each.field: each for each in diagnosis.fields if each.resource == "jobs"}
    assert (found["parentJobId"].nulls, found["parentJobId"].instead) == (2, "")
    assert re.search(
        "^parentJobId +null in all 2 +the label parent_run_id is empty$", diagnosis.as_text(), re.MULTILINE
    )
    assert found["parentRecordId"].instead.startswith("the items have "), "without an effect, so that it is not printed"
    assert re.search("^dueAt +0 of 2 ", diagnosis.as_text(), re.MULTILINE), "only one has the key"


async def test_a_field_that_only_some_items_have_says_which() -> None:
    scripted = ScriptedRuntime(Clock(time.time()))
    scripted.put(startedAt=None, status="queued", records={"total": 1, "completed": 1})
    scripted.failed_records["run-1"] = [{"id": "r1", "status": "completed", "endedAt": rfc3339(time.time())}]
    async with FaultyRuntime(scripted).serving() as url:
        diagnosis = await examine(Config(runtime=RuntimeConfig(base_url=url, resources=resources())))
    effects = {(each.resource, each.field): each.effect for each in diagnosis.fields if not each.found}
    assert not [field for field, effect in effects.items() if not effect], "each row says what it means"
    assert effects["jobs", "startedAt"] == "none: only runs that have started have one"
    assert effects["records", "step.name"] == "none: only records in flight and waiting ones have one"
    assert effects["records", "attempts"] == "none: only records in flight have one"
    assert effects["records", "errorCode"] == "none: only failed records have one"


async def test_the_cost_stands_beside_the_rate_limit_that_headers_tell() -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.put()
    policy = {"value": '"hour";q=100;w=3600'}

    async def fault(exchange: Exchange) -> None:
        await exchange.send(headers={"RateLimit-Policy": policy["value"]})

    async with FaultyRuntime(runtime, fault=fault).serving() as url:
        config = Config(runtime=RuntimeConfig(base_url=url, resources=resources()))
        found = await examine(config)
        (line,) = [each for each in found.as_text().splitlines() if "API requests per hour" in each]
        assert line.endswith(" while little changes. The API allows 100 requests per hour.")
        assert check(found, "rate limit").ok is False
        policy["value"] = "5000;w=60"
        found = await examine(config)
        assert check(found, "rate limit").ok is True
        policy["value"] = ""
        assert (await examine(config)).rate_limit == ""


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"X-RateLimit-Limit": "50", "X-RateLimit-Reset": "60"}, "50 requests until a reset, the next one in 60 s"),
        ({"X-RateLimit-Limit": "5000"}, "5,000 requests in a time that it does not tell"),
        ({"X-RateLimit-Limit-Minute": "10", "X-RateLimit-Limit-Hour": "100"}, "100 requests per hour"),
        ({"RateLimit-Limit": "100, 100;w=60"}, "6,000 requests per hour"),
        ({"RateLimit": "limit=50, remaining=40, reset=5"}, "50 requests in a time that it does not tell"),
        ({"RateLimit-Policy": '"burst";q=10;w=1, "hour";q=1000;w=3600'}, "1,000 requests per hour"),
        *(
            ({f"{prefix}RateLimit-Limit-{unit}": "10"}, f"{number} requests per hour")
            for prefix in ("", "X-")
            for unit, number in (("Second", "36,000"), ("Minute", "600"), ("Hour", "10"))
        ),
        ({"RateLimit-Limit-Day": "2400"}, "100 requests per hour"),
        ({"RateLimit-Policy": "10;w=1"}, "36,000 requests per hour"),
        ({"RateLimit-Policy": "10;w=0"}, None),
        ({"RateLimit-Policy": "x;w=60"}, None),
        ({"X-RateLimit-Limit": "many"}, None),
        ({}, None),
    ],
)
def test_rate_limits_are_understood_in_all_their_headers(headers: dict[str, str], says: str | None) -> None:
    found = allowance(httpx.Headers(headers), now=0.0)
    assert (None if found is None else str(found)) == says
