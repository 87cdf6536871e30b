"""The API conforms to its OpenAPI document for any request."""

from pathlib import Path
from typing import Any

import openapi_spec_validator
import schemathesis
import yaml
from hypothesis import settings
from starlette.routing import Route

from exporter import simulator
from exporter.simulator import Engine, ManualTimeline, create_app, load_scenario

DOCUMENT = yaml.safe_load((Path(simulator.__file__).parent / "openapi.yaml").read_text())
TOKEN = "cxg_for-tests"

# Time does not advance, so a response depends only on earlier requests.
ENGINE = Engine(load_scenario("healthy"), timeline=ManualTimeline())
APP = create_app(ENGINE, token=TOKEN, run_engine=False)
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
SCHEMA.app = APP
SCHEMA.config.generation.update(with_security_parameters=False)  # the test sends its own with every request

REAL_IDS = {"projectId": "clinic", "jobId": next(iter(ENGINE.jobs)), "spinnerId": "reminders"}


def test_the_document_is_valid_openapi() -> None:
    openapi_spec_validator.validate(DOCUMENT)


def test_the_document_has_exactly_the_paths_of_the_api() -> None:
    def without_names(path: str) -> list[str]:
        return ["{}" if part.startswith("{") else part for part in path.split("/")]

    routes = [without_names(route.path) for route in APP.routes if isinstance(route, Route)]
    assert sorted(routes) == sorted(map(without_names, DOCUMENT["paths"]))


@SCHEMA.parametrize()
@settings(max_examples=60, derandomize=True, database=None)
def test_every_response_conforms_to_the_document(case: schemathesis.Case[Any]) -> None:
    if case.meta is not None and case.meta.generation.mode is schemathesis.GenerationMode.POSITIVE:
        # A schema cannot express that the ids of a valid request exist and that its cursor was returned before.
        case.path_parameters.update({name: REAL_IDS[name] for name in case.path_parameters})
        case.query.pop("cursor", None)
    case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"})
