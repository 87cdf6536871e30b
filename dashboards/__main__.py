"""Writes every dashboard to `dashboards/dist/`: `python -m dashboards`."""

from pathlib import Path

from dashboards import capacity, exporter_health, jobs, live_ops, spinner_health
from dashboards.grafana import as_json

DIST = Path(__file__).parent / "dist"

DASHBOARDS = {
    board.uid: board
    for board in (
        jobs.DASHBOARD,
        live_ops.DASHBOARD,
        spinner_health.DASHBOARD,
        capacity.DASHBOARD,
        exporter_health.DASHBOARD,
    )
}


def main() -> None:
    """Write every dashboard, and delete the files of dashboards that no longer exist."""
    DIST.mkdir(exist_ok=True)
    for old in DIST.glob("*.json"):
        if old.stem not in DASHBOARDS:
            old.unlink()
    for uid, board in DASHBOARDS.items():
        (DIST / f"{uid}.json").write_text(as_json(board), encoding="utf-8")


if __name__ == "__main__":
    main()
