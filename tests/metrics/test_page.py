"""A page's parts: joined without being held twice, sent without being copied, the same whatever way they are sent."""

import gzip

from exporter.metrics.page import LARGE, PIECE, Fragment, MetricsPage


def texts(*sizes: int) -> list[bytes]:
    return [bytes([ord("a") + place % 26]) * size for place, size in enumerate(sizes)]


def test_joined_parts_are_what_they_were_and_share_the_text() -> None:
    given = texts(3, 0, 5)
    parts = [Fragment(text) for text in given]
    whole = Fragment.joined(parts)
    assert whole.text == b"".join(given)
    assert [bytes(part.text) for part in parts] == given
    held = [part.text.obj for part in parts if isinstance(part.text, memoryview)]
    assert len(held) == len(parts), "a part has a text of its own, beside the joined one"
    assert all(each is whole.text for each in held), "what a part shows is not the joined text"


def test_parts_can_be_joined_anew_with_others() -> None:
    first, second, third = map(Fragment, texts(3, 4, 5))
    before = Fragment.joined([first, second])
    after = Fragment.joined([first, third])
    assert before.text == b"aaabbbb"
    assert after.text == b"aaaccccc"
    assert gzip.decompress(after.gzip_fragment().gzip()) == after.text


async def test_a_page_is_the_same_in_pieces_at_once_and_packed() -> None:
    given = texts(10, LARGE, 20, 30, LARGE - 1, *[LARGE // 2] * 30, LARGE + 1, 1)
    page = MetricsPage(Fragment(text) for text in given)
    pieces = list(page.pieces())
    assert b"".join(pieces) == bytes(page) == b"".join(given)
    assert gzip.decompress(await page.gzip()) == bytes(page)
    assert page.size == len(bytes(page))
    assert all(pieces), "an empty piece is sent for nothing"
    assert max(map(len, pieces)) <= PIECE + LARGE


def test_a_large_part_is_sent_as_it_is() -> None:
    (large,) = texts(LARGE)
    assert any(piece is large for piece in MetricsPage([Fragment(b"small"), Fragment(large)]).pieces()), "it was copied"
