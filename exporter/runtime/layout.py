"""Where a response has its items, its cursor and its time: decodes bodies into the types of `wire`."""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from exporter.config.api_description import Resource
from exporter.runtime.almost_json import TypedDecoder, document
from exporter.runtime.mapping import ItemMapping, MisfitError, compiled, search, sources
from exporter.runtime.repairs import repaired, repaired_time, without_unusable
from exporter.runtime.wire import (
    MappedJob,
    MappedProject,
    Time,
    WireHealth,
    WireJob,
    WireMeter,
    WireOpenRecord,
    WirePage,
    WireProject,
    WireRecord,
    epoch,
)


class NullListError(ValueError):
    """The response has null where a list should be, as some languages write an empty list."""


class ReportedError(ValueError):
    """The response has the status of a valid one, and says that it is an error."""


class GoneError(ValueError):
    """The response is valid, and says that the item no longer exists."""


@dataclasses.dataclass(frozen=True, slots=True)
class RawPage:
    """A page whose items are not converted yet."""

    items: Sequence[Any]
    count: int
    """Items that the server sent, before `items` selects some."""
    cursor: str | None
    as_of: float | None
    total: int | None = None
    more: bool | None = None
    pages: int | None = None


class _ItemType:
    """An item's name in the metrics, its type in the contract, and its type after mapping."""

    def __init__(self, name: str, contract: type, mapped: type | None = None) -> None:
        self.name = name
        self.contract = contract
        self.mapped = mapped or contract


_ITEM_TYPES = {
    "health": _ItemType("health", WireHealth),
    "projects": _ItemType("project", WireProject, MappedProject),
    "jobs": _ItemType("job", WireJob, MappedJob),
    "job": _ItemType("job", WireJob, MappedJob),
    "records": _ItemType("record", WireRecord),
    "usage": _ItemType("meter", WireMeter),
}

OPEN = _ItemType("record", WireOpenRecord)
"""Records in the list of those that a run works on."""


class Layout:
    """How one resource's responses are laid out."""

    def __init__(self, name: str, resource: Resource, item_type: _ItemType | None = None) -> None:
        """`item_type` is by default that of the resource."""
        self.item_type = item_type or _ITEM_TYPES[name]
        self.resource = resource
        self.mapping = ItemMapping(name, resource)
        where = f"runtime.resources.{name}"
        paging = resource.paging
        self._items = compiled(resource.items, f"{where}.items")
        self._next = compiled(paging.next, f"{where}.paging.next") if paging.next is not None else None
        self._as_of = compiled(resource.as_of, f"{where}.as_of") if resource.as_of is not None else None
        self._item = compiled(resource.item, f"{where}.item") if resource.item is not None else None
        as_in_contract = (resource.items, paging.next or "nextCursor", resource.as_of or "asOf")
        self._gone = compiled(resource.gone, f"{where}.gone") if resource.gone is not None else None
        self._total = compiled(paging.total, f"{where}.paging.total") if paging.total is not None else None
        self._more = compiled(paging.more, f"{where}.paging.more") if paging.more is not None else None
        self._error = compiled(resource.error, f"{where}.error") if resource.error is not None else None
        self._sources = sources(self._items)
        told = (self._total, self._more, self._error, self._gone)
        is_plain = not self.mapping and all(each is None for each in told)
        self._is_typed = is_plain and as_in_contract == ("items", "nextCursor", "asOf")
        self._one: TypedDecoder[Any] = TypedDecoder(self.item_type.contract)
        self._page: msgspec.json.Decoder[WirePage[Any]] = msgspec.json.Decoder(WirePage[self.item_type.contract])  # type: ignore[name-defined]

    def typed_page(self, body: bytes) -> RawPage:
        """Decode a page in the contract's layout; raises `ValidationError` for any other."""
        if not self._is_typed:
            raise msgspec.ValidationError("not in the contract's layout")
        page = self._page.decode(body)
        _refuse_error(page.items, page.error, page.errors)
        return RawPage(page.items, len(page.items), page.next_cursor, _time(page.as_of))

    def page(self, body: bytes) -> RawPage:
        """Return any page with its raw items."""
        if self._is_typed:
            try:
                raw = _raw_page(body)
            except msgspec.ValidationError:
                self._refuse_null(document(body))
                raise
            _refuse_error(raw.items, raw.error, raw.errors)
            return RawPage(raw.items, len(raw.items), raw.next_cursor, _time(raw.as_of))
        tree = document(body)
        self._refuse_reported(tree)
        items = _search(self._items, tree)
        if isinstance(items, dict):
            items = list(items.values())
        if not isinstance(items, list):
            self._refuse_null(tree)
            raise ValueError(f"no list at {self.resource.items}")
        if isinstance(tree, dict):
            _refuse_error(items, tree.get("error"), tree.get("errors"))
        cursor = _search(self._next, tree) if self._next else None
        as_of = _search(self._as_of, tree) if self._as_of else None
        count = self._count(tree, len(items))
        told = self._told(tree, count)
        return RawPage(
            items,
            count,
            # False, like null, says that there is no next page.
            None if cursor is None or cursor is False else _plain(cursor),
            _time(as_of),
            _number(_search(self._total, tree), "paging.total") if self._total else told.items,
            told.more,
            told.pages,
        )

    def _told(self, tree: Any, count: int) -> "_Told":
        """Return what `paging.more` says: whether there is another page, or the number of all pages or items.

        The name of a number says which of them it is. `count` is that of the items of this page.
        """
        value = None if self._more is None else _search(self._more, tree)
        if value is None:
            return _Told()
        name = re.findall(r"[\w-]+", self.resource.paging.more or "")[-1].lower()
        flag = _FLAGS.get(str(value).lower())
        is_number = not isinstance(value, bool) and re.fullmatch(r"[0-9]+(\.0)?", str(value)) is not None
        if is_number and _OF_PAGES.search(name):
            return _Told(pages=_number(value, "paging.more"))
        if is_number and _OF_ITEMS.search(name):
            number = _number(value, "paging.more")
            if number is not None and number < count and not self._sources:
                raise ValueError("paging.more: the number of all items is less than that of this page")
            return _Told(items=number)
        if flag is None:
            raise ValueError("paging.more: expected true or false, or a number whose name has total, count or pages")
        return _Told(more=flag)

    def _refuse_reported(self, tree: Any) -> None:
        """Raise `GoneError` or `ReportedError` for a response that says so."""
        if self._gone is not None and _search(self._gone, tree):
            raise GoneError(f"gone, as {self.resource.gone} says")
        if self._error is not None and _search(self._error, tree):
            raise ReportedError(f"the response is an error, as {self.resource.error} says")

    def _count(self, tree: Any, selected: int) -> int:
        """Return how many items the server sent, of which `items` selects some."""
        try:
            counts = [source.count(tree) for source in self._sources]
        except MisfitError:
            counts = []
        # Of nested lists, either level can be what is divided into pages.
        size = self.resource.paging.size
        return size if size in counts else max([selected, *counts])

    def _refuse_null(self, tree: Any) -> None:
        """Raise `NullListError` if there is null where the list should be."""
        *path, last = self.resource.items.split(".")
        for key in path:
            tree = tree.get(key) if isinstance(tree, dict) else None
        if isinstance(tree, dict) and tree.get(last, self) is None:
            raise NullListError(f"null instead of a list at {self.resource.items}")

    def item(self, raw: Any, now: float) -> "Item":
        """Convert one raw item of a response of the time `now` to its type."""
        if isinstance(raw, msgspec.Raw):
            return self._contract_item(bytes(raw))
        if self.mapping:
            ignored = list[str]()
            return _converted(self.mapping(raw, now, ignored), self.item_type.mapped, ignored)
        return _converted(repaired(raw), self.item_type.contract)

    def _contract_item(self, body: bytes) -> "Item":
        try:
            return Item(self._one.decode(body))
        except msgspec.ValidationError:
            return _converted(repaired(document(body)), self.item_type.contract)

    def decode(self, body: bytes, now: float) -> "Item":
        """Decode a body that is one item, of a response of the time `now`."""
        if not self.mapping and self._item is None and self._gone is None and self._error is None:
            return self._contract_item(body)
        return self.item(self.single(body), now)

    def single(self, body: bytes) -> Any:
        """Return the one raw item in a body. Raises `GoneError` if the body says that it no longer exists."""
        tree = document(body)
        self._refuse_reported(tree)
        if self._item is None:
            return tree
        item = _search(self._item, tree)
        if item is None:
            raise ValueError(f"nothing at {self.resource.item}")
        return item


class Item(NamedTuple):
    """An item in its type."""

    value: Any
    ignored: Sequence[str] = ()
    """The fields whose values cannot be right and are unknown, dotted where nested."""


def _converted(tree: Any, to: type, ignored: Sequence[str] = ()) -> Item:
    try:
        return Item(msgspec.convert(tree, to), ignored)
    except msgspec.ValidationError:
        usable, more = without_unusable(tree, to)
        if not more:
            raise
        return Item(msgspec.convert(usable, to), [*ignored, *more])


def flat(item: Any, fields: Iterable[str]) -> dict[str, Any]:
    """Return those fields of an item that have a value, by their dotted names."""
    found = {}
    for field in fields:
        value = item
        for key in field.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            found[field] = value
    return found


def _refuse_error(items: Sequence[Any], *errors: Any) -> None:
    """Raise for a list that is empty since it could not be read: some APIs send such an error with status 200."""
    if not items and any(errors):
        raise ValueError("the list is empty and names an error")


def _time(value: Any) -> float | None:
    """Return the time of a response; that of one that means none is out of all bounds."""
    return epoch(msgspec.convert(repaired_time(value), Time | None))


def _search(expression: Any, tree: Any) -> Any:
    try:
        return search(expression, tree)
    except MisfitError:
        raise ValueError("an expression of runtime.resources does not fit the response") from None


def _plain(cursor: Any) -> str:
    return str(int(cursor) if isinstance(cursor, float) and cursor.is_integer() else cursor)


def _number(value: Any, key: str) -> int | None:
    """Return a number of items or pages; None if the response has none there."""
    if value is None:
        return None
    try:
        number = None if isinstance(value, bool) else int(float(value))
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or number < 0:
        raise ValueError(f"{key}: expected a number of items")
    return number


class _Told(NamedTuple):
    """What a response says about the rest of its list."""

    more: bool | None = None
    items: int | None = None
    pages: int | None = None


_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": False}
_OF_PAGES = re.compile(r"(?<!per_)(?<!per-)(?<!per)(?<!next_)(?<!next-)(?<!next)pages?(?!.?size)")
_OF_ITEMS = re.compile("total|count|entries|elements|results|items|records|hits|found")
"""How the names of such numbers are recognised, in lower case: total_pages, pageCount, total, totalElements."""


def _raw_page(body: bytes) -> WirePage[Any]:
    """Return a page in the contract's layout with undecoded items, so that an invalid one does not cost the others."""
    try:
        return _RAW_PAGE.decode(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # One item is not valid JSON, and there is no telling where it ends.
        return msgspec.convert(document(body), WirePage[Any])


_RAW_PAGE = msgspec.json.Decoder(WirePage[msgspec.Raw])
