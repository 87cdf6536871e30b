"""The entry point: `spinner-exporter`, and `python -m exporter`."""

import sys


def main() -> None:
    """Run a command. A health check does not import the others, because that takes most of its time."""
    if sys.argv[1:2] == ["healthcheck"] and not {"-h", "--help"} & set(sys.argv):
        from exporter.healthcheck import main as check

        sys.exit(check(sys.argv[2:]))
    from exporter.cli import main as run

    run()


if __name__ == "__main__":
    main()
