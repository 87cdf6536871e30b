"""What is kept of a list of records: the first ones by name, and how many are at each step."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.runs.listed_records import OTHER_STEPS, ListedRecords, RecordKind
from exporter.runtime.model import OpenRecord

TIMES = st.none() | st.integers(1, 5).map(float)
STEPS = st.sampled_from(["", "Ask", "Call", "Send", OTHER_STEPS])
RECORDS = st.lists(
    st.builds(OpenRecord, st.sampled_from("abcdefgh"), STEPS, st.none(), TIMES, TIMES, st.none()), max_size=12
)


@pytest.mark.parametrize("kind", ["in flight", "waiting"])
@given(records=RECORDS, most_named=st.integers(0, 4), most_steps=st.integers(1, 3), is_whole=st.booleans())
def test_the_first_are_named_and_the_steps_add_up(
    kind: RecordKind, records: list[OpenRecord], most_named: int, most_steps: int, is_whole: bool
) -> None:
    kept = ListedRecords.of(kind, records, is_whole=is_whole, most_named=most_named, most_steps=most_steps)
    last = {record.id: record for record in records}
    since = {record.id: record.step_started_at if kind == "waiting" else record.started_at for record in last.values()}
    named = [record.id for record in kept.named]
    assert len(named) == len(set(named)) == min(most_named, len(last))
    latest = max((since[each] or 9.0 for each in named), default=0.0)
    assert all((since[each] or 9.0) >= latest for each in last if each not in named), (
        "one that began earlier is not named"
    )
    counted = dict(kept.by_step)
    if is_whole:
        assert sum(counted.values()) == len(last)
        assert len(counted) <= most_steps + 1
        steps = Counter(record.step for record in last.values())
        assert all(counted[step] == steps[step] for step in counted if step != OTHER_STEPS)
        assert kept.oldest_at == (
            None if None in since.values() else min((at for at in since.values() if at is not None), default=None)
        )
    else:
        assert (counted, kept.oldest_at) == ({}, None), "others may be older, and at other steps"
    assert kept.first_at == (since[named[0]] if named else None)
    assert kept.trimmed(1).named == kept.named[:1]
