"""A page's fragments: joined without a second copy in memory, and the same page whichever way it is sent."""

import asyncio
import gzip

import pytest

from exporter.metrics.gzip_fragment import GzipFragment
from exporter.metrics.page import LARGE, PIECE, Fragment, MetricsPage


def texts(*sizes: int) -> list[bytes]:
    return [bytes([ord("a") + place % 26]) * size for place, size in enumerate(sizes)]


def test_joined_fragments_keep_their_text_and_share_its_memory() -> None:
    given = texts(3, 0, 5)
    parts = [Fragment(text) for text in given]
    whole = Fragment.joined(parts)
    assert whole.text == b"".join(given)
    assert [bytes(part.text) for part in parts] == given
    held = [part.text.obj for part in parts if isinstance(part.text, memoryview)]
    assert len(held) == len(parts), "a fragment still has its own copy"
    assert all(each is whole.text for each in held), "a fragment is not a view of the joined text"


def test_fragments_can_be_joined_again_with_others() -> None:
    first, second, third = map(Fragment, texts(3, 4, 5))
    before = Fragment.joined([first, second])
    after = Fragment.joined([first, third])
    assert before.text == b"aaabbbb"
    assert after.text == b"aaaccccc"
    assert gzip.decompress(after.gzip_fragment().gzip()) == after.text


async def test_a_page_is_the_same_in_pieces_as_a_whole_and_compressed() -> None:
    given = texts(10, LARGE, 20, 30, LARGE - 1, *[LARGE // 2] * 30, LARGE + 1, 1)
    page = MetricsPage(Fragment(text) for text in given)
    pieces = list(page.pieces())
    assert b"".join(pieces) == bytes(page) == b"".join(given)
    assert gzip.decompress(await page.gzip()) == bytes(page)
    assert page.size == len(bytes(page))
    assert all(pieces), "an empty piece is sent"
    assert max(map(len, pieces)) <= PIECE + LARGE


def test_small_fragments_are_sent_together() -> None:
    pieces = list(MetricsPage(map(Fragment, texts(*[PIECE // 10] * 40))).pieces())
    assert [len(piece) // (PIECE // 10) for piece in pieces] == [10] * 4


@pytest.mark.parametrize("size", [LARGE, LARGE + 1])
def test_a_large_fragment_is_sent_without_a_copy(size: int) -> None:
    (large,) = texts(size)
    assert any(piece is large for piece in MetricsPage([Fragment(b"small"), Fragment(large)]).pieces()), "it was copied"


async def test_a_compressed_page_is_much_smaller() -> None:
    lines = "".join(f'spinner_run_info{{project="Sales",run_id="run-{number}"}} 1\n' for number in range(1000))
    page = MetricsPage([Fragment(lines.encode())])
    assert len(await page.gzip()) < page.size / 5


async def test_compressing_a_page_lets_other_tasks_run_after_each_new_fragment() -> None:
    page = MetricsPage(Fragment(text) for text in texts(10, 20, 30))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await page.gzip()
    assert turns == 3
    await page.gzip()
    assert turns == 3, "nothing was left to compress"
    task.cancel()


@pytest.mark.parametrize("size", [1, 255, 256, 257, 65_535, 65_536, 16_777_216])
def test_the_checksum_of_joined_fragments_is_that_of_their_text(size: int) -> None:
    first, second = b"spinner", bytes(size)
    joined = GzipFragment.joined([GzipFragment.of(first), GzipFragment.of(second)])
    assert gzip.decompress(joined.gzip()) == first + second
