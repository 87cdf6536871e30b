"""`spinner-exporter doctor`: checks a connection before it is relied on, and suggests a config for an unknown API."""

from exporter.doctor.diagnosis import Check, Diagnosis, FieldFinding, as_json, as_text, examine, suggest_from_answers
from exporter.doctor.suggest import SuggestError, from_answers, from_openapi, read_openapi

__all__ = [
    "Check",
    "Diagnosis",
    "FieldFinding",
    "SuggestError",
    "as_json",
    "as_text",
    "examine",
    "from_answers",
    "from_openapi",
    "read_openapi",
    "suggest_from_answers",
]
