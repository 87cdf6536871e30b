"""Checks that every coloured text of the dashboards is legible in the dark and in the light theme.

Contrasts are those of the Web Content Accessibility Guidelines 2.2: 4.5 for text (1.4.3), 3 for lines, bars and other
graphics (1.4.11).
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from dashboards import style
from dashboards.__main__ import DASHBOARDS, DIST

BOARDS = {uid: json.loads((DIST / f"{uid}.json").read_text()) for uid in DASHBOARDS}
PANELS = [
    pytest.param(panel, id=f"{uid}-{panel['title']}") for uid, board in BOARDS.items() for panel in board["panels"]
]

COLOURS = {name: getattr(style, name) for name in ("GREEN", "BLUE", "ORANGE", "RED", "MAGENTA", "PURPLE", "GREY")}

# `palette` in @grafana/data 13.2.2: the panels of both themes.
DARK, LIGHT = "#181b1f", "#ffffff"


def text_on(background: str) -> str:
    """`getTextColorForAlphaBackground` in @grafana/ui 13.2.2."""
    red, green, blue = channels(background)
    return "#202226" if (red * 299 + green * 587 + blue * 114) / 1000 > 180 else "#f7f8fa"


def channels(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[index : index + 2], 16) for index in (1, 3, 5))
    return red, green, blue


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, from 1 to 21."""
    darker, brighter = sorted(map(luminance, (one, other)))
    return (brighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    """The relative luminance of a colour in sRGB."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (each / 255 for each in channels(colour))
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_contrast_of_black_and_white_is_21() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("name", COLOURS)
def test_text_on_a_colour_is_legible(name: str) -> None:
    """It does not depend on the theme."""
    assert contrast(text_on(COLOURS[name]), COLOURS[name]) >= 4.5


@pytest.mark.parametrize("name", sorted(COLOURS.keys() - {"ORANGE"}))
def test_a_line_in_a_colour_is_visible_in_both_themes(name: str) -> None:
    assert contrast(COLOURS[name], DARK) >= 3
    assert contrast(COLOURS[name], LIGHT) >= 3


@pytest.mark.parametrize("panel", PANELS)
def test_no_text_has_a_colour_of_its_own(panel: dict[str, Any]) -> None:
    """A colour is the background of a text; no colour has a contrast of 4.5 with the panels of both themes."""
    options = panel["options"]
    assert options.get("colorMode", "background_solid") in ("background_solid", "fixed")
    assert options.get("valueMode", "text") == "text"
    for key, value in pairs(panel["fieldConfig"]):
        if key == "type" and str(value).startswith("color-"):
            assert value == "color-background"


@pytest.mark.parametrize("panel", PANELS)
def test_the_background_of_a_text_is_not_mixed_with_the_panel(panel: dict[str, Any]) -> None:
    """White on 80% of the blue has a contrast of 3.4 in the light theme."""
    if panel["type"] == "state-timeline":
        assert panel["fieldConfig"]["defaults"]["custom"]["fillOpacity"] == 100


@pytest.mark.parametrize("panel", PANELS)
def test_what_is_neutral_has_no_background(panel: dict[str, Any]) -> None:
    """The colour of text would be a bright block in the dark theme."""
    coloured = [] if panel["type"] == "table" else [panel["fieldConfig"]["defaults"]] * (panel["type"] == "stat")
    for override in panel["fieldConfig"]["overrides"] if panel["type"] == "table" else ():
        properties = {each["id"]: each["value"] for each in override["properties"]}
        if properties["custom.cellOptions"]["type"] == "color-background":
            coloured.append(properties)
    for shown in coloured:
        assert "text" not in [value for key, value in pairs(shown) if key == "color"]


@pytest.mark.parametrize("panel", PANELS)
def test_lines_are_not_orange(panel: dict[str, Any]) -> None:
    """It is as bright as black text needs, and so hardly visible on the white of the light theme."""
    if panel["type"] == "timeseries" and panel["fieldConfig"]["defaults"]["custom"]["drawStyle"] == "line":
        stacked = panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal"
        assert stacked or style.ORANGE not in [value for _, value in pairs(panel["fieldConfig"])]


def test_every_colour_is_one_of_these() -> None:
    used = {each.upper() for each in re.findall(r'"(#[0-9A-Fa-f]{6})"', json.dumps(BOARDS))}
    assert used <= {each.upper() for each in COLOURS.values()}


def pairs(tree: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield key, value
            yield from pairs(value)
    elif isinstance(tree, list):
        for each in tree:
            yield from pairs(each)
