"""The running exporter: one config generation with its runtimes, swapped as a whole by a reload."""

from exporter.service.exporter import PATIENCE, SCRAPE_INTERVAL, Exporter, ProbeTarget
from exporter.service.monitored_runtime import Dependencies, MonitoredRuntime

__all__ = ["PATIENCE", "SCRAPE_INTERVAL", "Dependencies", "Exporter", "MonitoredRuntime", "ProbeTarget"]
