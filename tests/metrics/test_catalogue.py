"""The catalogue is an interface: its documentation is up to date, and its names follow Prometheus's conventions."""

from pathlib import Path

import pytest

from exporter.metrics import catalogue
from exporter.metrics.document import as_markdown
from exporter.metrics.exporter_metrics import ExporterMetrics
from tests.builders import Clock

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"

FAMILIES = (
    *catalogue.RUN_FAMILIES,
    *catalogue.SPINNER_FAMILIES,
    *catalogue.PROJECT_FAMILIES,
    *catalogue.GLOBAL_FAMILIES,
    *catalogue.EXPORTER_FAMILIES,
)


def test_the_document_is_up_to_date() -> None:
    assert DOCUMENT.read_text() == as_markdown(), "run `make docs` and read what changed"


def test_names_are_unique() -> None:
    assert len(catalogue.names()) == len(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_names_follow_the_conventions(family: catalogue.Family[object] | catalogue.ExporterFamily) -> None:
    assert family.name.startswith("spinner_")
    assert family.name.endswith("_total") == (family.type == "counter"), "counters end in _total, and nothing else does"
    assert not any(unit in family.name for unit in ("_ms", "milli", "minutes", "percent")), "base units only"
    assert family.help.endswith(".")
    assert not {"contact", "email", "phone", "name", "message"} & set(family.labels), "nothing of a contact is a label"


def test_every_metric_about_the_exporter_is_in_the_catalogue_and_is_exposed() -> None:
    own = ExporterMetrics(version="0", wall=Clock())
    exposed = {metric.name for metric in own.registry.collect() if not metric.name.startswith("process_")}
    assert exposed == {family.name.removesuffix("_total") for family in catalogue.EXPORTER_FAMILIES}
