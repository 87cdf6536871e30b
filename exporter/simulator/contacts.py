"""The table of all spinners: `contacts.csv`, with fictitious people and unusable addresses."""

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple


class Contact(NamedTuple):
    """A row of the table. It represents personal data, so only error messages contain it."""

    name: str
    email: str
    phone: str


@cache
def contacts() -> tuple[Contact, ...]:
    """Return the table. A few rows have no phone number or no email address."""
    with (Path(__file__).parent / "contacts.csv").open(encoding="utf-8", newline="") as file:
        return tuple(Contact(row["name"], row["email"], row["phone"]) for row in csv.DictReader(file))
