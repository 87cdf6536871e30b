"""`python -m exporter`: the same as the command `spinner-exporter`."""

from exporter.cli import main

main()
