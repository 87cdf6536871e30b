"""Draws the frontier of `docs/accuracy.md`: precision against the time to a page, for several accepted rates."""

from pathlib import Path

from tests.stalls.histories import MINUTE
from tests.stalls.replay import Score

BUDGETS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 5.0)
"""Values of `stalls.false_pages`."""

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "stall-frontier.svg"

WIDTH, HEIGHT, MARGIN = 720, 420, 60
LEAST_PRECISION, MOST_MINUTES = 0.3, 20.0


def picture(ours: dict[str, Score], others: dict[str, Score]) -> str:
    """Return the picture as SVG."""
    points = [(*_place(each), name) for name, each in ours.items()]
    line = " ".join(f"{x:.0f},{y:.0f}" for x, y, _ in points)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12" fill="#333">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        *_axes(),
        f'<polyline points="{line}" fill="none" stroke="#1f60c4" stroke-width="2"/>',
    ]
    for x, y, name in points:
        parts.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="4" fill="#1f60c4"/>')
        parts.append(f'<text x="{x + 6:.0f}" y="{y - 7:.0f}" fill="#1f60c4">{name}</text>')
    for number, (name, each) in enumerate(others.items()):
        x, y = _place(each)
        parts.append(f'<rect x="{x - 4:.0f}" y="{y - 4:.0f}" width="8" height="8" fill="#e0752d"/>')
        parts.append(f'<text x="{x + 10:.0f}" y="{y + 4 + 14 * (number - 1):.0f}" fill="#e0752d">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _place(score: Score) -> tuple[float, float]:
    across = min(score.median_delay / MINUTE, MOST_MINUTES) / MOST_MINUTES
    up = (score.precision - LEAST_PRECISION) / (1 - LEAST_PRECISION)
    return MARGIN + across * (WIDTH - 2 * MARGIN), HEIGHT - MARGIN - max(up, 0.0) * (HEIGHT - 2 * MARGIN)


def _axes() -> list[str]:
    bottom, right = HEIGHT - MARGIN, WIDTH - MARGIN
    parts = [f'<path d="M{MARGIN},{MARGIN} V{bottom} H{right}" fill="none" stroke="#888"/>']
    for minutes in range(0, int(MOST_MINUTES) + 1, 5):
        x = MARGIN + minutes / MOST_MINUTES * (WIDTH - 2 * MARGIN)
        parts.append(f'<text x="{x:.0f}" y="{bottom + 18}" text-anchor="middle">{minutes}</text>')
    for tenths in range(round(10 * LEAST_PRECISION), 11):
        y = bottom - (tenths / 10 - LEAST_PRECISION) / (1 - LEAST_PRECISION) * (HEIGHT - 2 * MARGIN)
        parts.append(f'<text x="{MARGIN - 8}" y="{y + 4:.0f}" text-anchor="end">{tenths / 10:.1f}</text>')
        parts.append(f'<path d="M{MARGIN},{y:.0f} H{right}" stroke="#eee"/>')
    parts.append(f'<text x="{WIDTH / 2:.0f}" y="{HEIGHT - 15}" text-anchor="middle">minutes until half is found</text>')
    parts.append(f'<text x="{MARGIN}" y="{MARGIN - 20}">pages that were right (precision)</text>')
    return parts
