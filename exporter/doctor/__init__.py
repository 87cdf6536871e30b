"""`spinner-exporter doctor`: checks a connection, and suggests a config for an unknown API."""

from exporter.doctor.diagnosis import (
    Check,
    Diagnosis,
    FieldFinding,
    are_ok,
    as_json,
    as_text,
)
from exporter.doctor.examination import examine
from exporter.doctor.guesses import SuggestError
from exporter.doctor.openapi import read_openapi
from exporter.doctor.own_files import examine_own_files
from exporter.doctor.suggest import from_openapi, from_responses
from exporter.doctor.survey import suggest_from_responses

__all__ = [
    "Check",
    "Diagnosis",
    "FieldFinding",
    "SuggestError",
    "are_ok",
    "as_json",
    "as_text",
    "examine",
    "examine_own_files",
    "from_openapi",
    "from_responses",
    "read_openapi",
    "suggest_from_responses",
]
