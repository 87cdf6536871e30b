"""The table that every spinner runs over: `contacts.csv`, made-up people who cannot be reached anywhere."""

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple


class Contact(NamedTuple):
    """A row of the table. Personal data, as in earnest: only error messages tell of it."""

    name: str
    email: str
    phone: str


@cache
def contacts() -> tuple[Contact, ...]:
    """Return the whole table. A few rows lack a phone number or an address, as in any table."""
    with (Path(__file__).parent / "contacts.csv").open(encoding="utf-8", newline="") as file:
        return tuple(Contact(row["name"], row["email"], row["phone"]) for row in csv.DictReader(file))
