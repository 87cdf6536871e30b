"""Where a response has its items, its cursor and its time: decodes bodies into the types of `wire`."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from exporter.config.api_description import Resource
from exporter.runtime.almost_json import TypedDecoder, document
from exporter.runtime.mapping import ItemMapping, MisfitError, compiled, search, sources
from exporter.runtime.repairs import repaired, repaired_time
from exporter.runtime.wire import (
    MappedJob,
    Time,
    WireHealth,
    WireJob,
    WireMeter,
    WirePage,
    WireProject,
    WireRecord,
    epoch,
)


class NullListError(ValueError):
    """The response has null where a list should be, as some languages write an empty list."""


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


class _ItemType:
    """An item's name in the metrics, its type in the contract, and its type after mapping."""

    def __init__(self, name: str, contract: type, mapped: type | None = None) -> None:
        self.name = name
        self.contract = contract
        self.mapped = mapped or contract


_ITEM_TYPES = {
    "health": _ItemType("health", WireHealth),
    "projects": _ItemType("project", WireProject),
    "jobs": _ItemType("job", WireJob, MappedJob),
    "job": _ItemType("job", WireJob, MappedJob),
    "records": _ItemType("record", WireRecord),
    "usage": _ItemType("meter", WireMeter),
}


class Layout:
    """How one resource's responses are laid out."""

    def __init__(self, name: str, resource: Resource) -> None:
        self.item_type = _ITEM_TYPES[name]
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
        self._sources = sources(self._items)
        is_plain = not self.mapping and self._total is None and self._more is None
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
        return RawPage(
            items,
            self._count(tree, len(items)),
            # False, like null, says that there is no next page.
            None if cursor is None or cursor is False else _plain(cursor),
            _time(as_of),
            _number(_search(self._total, tree)) if self._total else None,
            _flag(_search(self._more, tree)) if self._more else None,
        )

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

    def item(self, raw: Any, now: float) -> Any:
        """Convert one raw item of a response of the time `now` to its type."""
        if isinstance(raw, msgspec.Raw):
            return self._contract_item(bytes(raw))
        if self.mapping:
            return msgspec.convert(self.mapping(raw, now), self.item_type.mapped)
        return msgspec.convert(repaired(raw), self.item_type.contract)

    def _contract_item(self, body: bytes) -> Any:
        try:
            return self._one.decode(body)
        except msgspec.ValidationError:
            item = document(body)
            after = repaired(item)
            if after is item:
                raise
            return msgspec.convert(after, self.item_type.contract)

    def decode(self, body: bytes, now: float) -> Any:
        """Decode a body that is one item, of a response of the time `now`."""
        if not self.mapping and self._item is None and self._gone is None:
            return self._contract_item(body)
        return self.item(self.single(body), now)

    def single(self, body: bytes) -> Any:
        """Return the one raw item in a body. Raises `GoneError` if the body says that it no longer exists."""
        tree = document(body)
        if self._gone and _search(self._gone, tree):
            raise GoneError(f"gone, as {self.resource.gone} says")
        if self._item is None:
            return tree
        item = _search(self._item, tree)
        if item is None:
            raise ValueError(f"nothing at {self.resource.item}")
        return item


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


def _number(value: Any) -> int | None:
    """Return a number of items; None if the response has none there."""
    if value is None:
        return None
    try:
        number = -1 if isinstance(value, bool) else int(value)
    except (TypeError, ValueError, OverflowError):
        number = -1
    if number < 0:
        raise ValueError("paging.total: expected a number of items")
    return number


def _flag(value: Any) -> bool | None:
    """Return whether there are more pages; None if the response does not say so."""
    if value is None:
        return None
    said = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": False}
    flag = said.get(str(value).lower())
    if flag is None:
        raise ValueError("paging.more: expected true or false")
    return flag


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
