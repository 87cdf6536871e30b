"""The running exporter: one config generation with its runtimes, replaced as a whole by a reload."""

from exporter.service.exporter import MAX_WAIT, SCRAPE_INTERVAL, Exporter
from exporter.service.generation import ProbeTarget
from exporter.service.monitored_runtime import Dependencies, MonitoredRuntime

__all__ = ["MAX_WAIT", "SCRAPE_INTERVAL", "Dependencies", "Exporter", "MonitoredRuntime", "ProbeTarget"]
