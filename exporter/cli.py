"""The command line: each command reads its flags and calls one function. Errors become exit codes here only.

`demo`, `doctor` and `simulator` are imported in the commands that need them: together they take longer to import than
`serve` needs to start.
"""

import asyncio
import contextlib
import json
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import click
import structlog
from click.core import ParameterSource

from exporter import __version__, healthcheck, logs
from exporter.config import ENVIRONMENT_PREFIX, ExporterConfig, flag_of, load, parse_duration, read_file, warnings
from exporter.errors import ConfigError, ExporterError, OutputError, UnusableError
from exporter.metrics.document import as_markdown
from exporter.output import checked_output, print_error, print_for_people, show_error
from exporter.runs.state_file import check_folder
from exporter.runtime.connections import warm_up
from exporter.runtime.description import check_description
from exporter.service import Exporter
from exporter.web.app import create_app
from exporter.web.auth import WebConfigFile
from exporter.web.server import listen, serve, url_of

F = TypeVar("F", bound=Callable[..., Any])

log = structlog.get_logger(__name__)

EXIT_FAILED = 1
EXIT_CONFIG = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command, by default the one of the process: the console script `spinner-exporter`."""
    try:
        with checked_output():
            cli(arguments, standalone_mode=False)
    except UnusableError as error:
        _fail(str(error), EXIT_FAILED)  # systemd starts the exporter again
    except ConfigError as error:
        _fail(str(error), EXIT_CONFIG)
    except ExporterError as error:
        _fail(str(error), EXIT_FAILED)
    except click.ClickException as error:
        show_error(error)
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="spinner-exporter")
def cli() -> None:
    """Prometheus exporter for spinner runs: progress, status, duration and failed records.

    Flags override SPINNER_EXPORTER_* environment variables, which override the config file.
    """


def _with_settings(command: F) -> F:
    """Add the flags that override the config file to a command; `_loader` reads them."""
    for path, (kind, text) in reversed(_FLAGS.items()):
        flag = flag_of(path)
        switch: dict[str, Any] = {"is_flag": True, "default": None} if kind is bool else {"type": kind}
        command = click.option(flag, path.replace(".", "__"), help=text, **switch)(command)
    return _config_file("Config file. Optional if environment variables or flags contain all required settings.")(
        command
    )


def _config_file(text: str) -> Callable[[F], F]:
    return click.option(
        "--config.file",
        "config_file",
        type=click.Path(path_type=Path),
        envvar="SPINNER_EXPORTER_CONFIG_FILE",
        help=text,
    )


_FLAGS: dict[str, tuple[type, str]] = {
    "runtime.base_url": (str, "Base URL of the runtime's API, without /api/v1."),
    "runtime.token_file": (str, "File that contains the API token."),
    "web.listen_address": (str, "Address to listen on; default :10095."),
    "web.config_file": (
        str,
        "File that enables TLS or authentication, in the format of Prometheus's exporter-toolkit.",
    ),
    "web.enable_lifecycle": (bool, "Enable reloads by POST /-/reload."),
    "log.level": (str, "Log level: debug, info, warn or error."),
    "log.format": (str, "Log format: logfmt or json."),
}


def _loader(config_file: Path | None, flags: dict[str, Any]) -> Callable[[], ExporterConfig]:
    """Return a function that reads the config, at the start and at a reload."""
    given = {name.replace("__", "."): value for name, value in flags.items() if value is not None}
    return lambda: load(config_file, environ=os.environ, flags=given, check=check_description)


def _with_scenario(command: F) -> F:
    """Add the flags that choose what the embedded runtime plays to a command."""
    command = click.option(
        "--seed",
        type=int,
        default=1,
        show_default=True,
        help="Seed of the random events; the same seed repeats the same run.",
    )(command)
    command = click.option(
        "--speed",
        type=_Speed(1, 600),
        default=60,
        show_default=True,
        help="Scenario seconds per real second: at 60, one minute plays one hour.",
    )(command)
    return click.option(
        "--scenario",
        default="healthy",
        show_default=True,
        cls=_ScenarioOption,
        help="Scenario: a file, or one of {names}.",
    )(command)


class _Speed(click.FloatRange):
    """A number in a range: without this check `nan` would be in every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        speed = super().convert(value, param, ctx)
        if math.isnan(speed):
            self.fail(f"expected a number from {self.min} to {self.max}, got {value}", param, ctx)
        return speed


class _ScenarioOption(click.Option):
    """Lists the scenarios only when help is requested, since it reads all of them."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        from exporter import simulator

        self.help = (self.help or "").format(names=", ".join(simulator.shipped_scenarios()))
        return super().get_help_record(ctx)


class _WithSettings(click.Command):
    """A command with the flags of `_with_settings`, and no argument: says how to name the config file instead."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if not error.message.startswith("Got unexpected extra argument"):
                raise
            raise click.UsageError(f"{error.message}; name the config file with --config.file=FILE", ctx) from None


@cli.command("serve", cls=_WithSettings, short_help="Serve metrics; each scrape reads what has changed.")
@_with_settings
def serve_command(config_file: Path | None, **flags: Any) -> None:
    """Serve metrics. Each scrape reads what has changed in the runtime."""
    load_settings = _loader(config_file, flags)
    settings = load_settings()
    logs.configure(settings.log.level, settings.log.format)
    asyncio.run(_serve(settings, load_settings))


@cli.command(cls=_WithSettings, short_help="Read the runtime once and print the metrics.")
@_with_settings
def once(config_file: Path | None, **flags: Any) -> None:
    """Read the runtime once and print the metrics. The exit status is 1 if the runtime cannot be read."""
    settings = _loader(config_file, flags)()
    logs.configure(settings.log.level, settings.log.format)
    sys.exit(asyncio.run(_once(settings)))


@cli.command("check-config", short_help="Check a config file and the files that it names.")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@_config_file("The same as FILE.")
@click.pass_context
def check_config(ctx: click.Context, file: Path | None, config_file: Path | None) -> None:
    """Check a config file, and the files and folders that it names."""
    is_flag = ctx.get_parameter_source("config_file") is ParameterSource.COMMANDLINE
    if file is not None and is_flag and file != config_file:
        raise click.UsageError("expected one config file, either as FILE or with --config.file", ctx)
    file = file or config_file
    if file is None:
        raise click.UsageError("Missing argument 'FILE', or --config.file=FILE.", ctx)
    settings = load(file, environ=os.environ, check=check_description)
    Exporter(settings.runtimes)
    if settings.storage.path:
        check_folder(Path(settings.storage.path), settings.runtimes)
    for warning in _warnings(settings, _web_config_file(settings)):
        click.echo(f"{file}: warning: {warning}", err=True)
    print_for_people()
    click.echo(f"{file}: good")


@cli.command("doctor", cls=_WithSettings, short_help="Check a connection, or suggest a config for an API.")
@_with_settings
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--suggest", "suggests", is_flag=True, help="Print a first config, guessed from the API's responses.")
@click.option(
    "--openapi", metavar="URL", help="With --suggest: guess from this OpenAPI document instead, a URL or a file."
)
def doctor_command(config_file: Path | None, as_json: bool, suggests: bool, openapi: str | None, **flags: Any) -> None:
    """Check a connection: authentication, clocks, every field, and the expected number of series and requests.

    The exit status is 1 if the exporter could not serve metrics with this config.
    """
    from exporter import doctor

    if openapi is not None and not suggests:
        raise ConfigError("--openapi: requires --suggest")
    if suggests:
        click.echo(_suggestion(config_file, openapi, flags), nl=False)
        return
    settings = _loader(config_file, flags)()
    logs.configure("error", settings.log.format)
    diagnoses = {name: asyncio.run(doctor.examine(config)) for name, config in settings.runtimes.items()}
    own = doctor.examine_own_files(settings)
    if as_json:
        click.echo(doctor.as_json(diagnoses, own))
    else:
        print_for_people()
        click.echo(doctor.as_text(diagnoses, own))
    sys.exit(0 if doctor.are_ok(diagnoses, own) else EXIT_FAILED)


def _suggestion(config_file: Path | None, openapi: str | None, flags: dict[str, Any]) -> str:
    """Return a first config, guessed from an OpenAPI document if one is given, and else from responses."""
    from exporter import doctor

    if openapi is None:
        settings = _loader(config_file, flags)()
        logs.configure("error", settings.log.format)
        content = _single_runtime(config_file)
        (config,) = settings.runtimes.values()
        return asyncio.run(doctor.suggest_from_responses(config, content))
    content = _single_runtime(config_file)
    document = asyncio.run(doctor.read_openapi(openapi))
    return doctor.from_openapi(
        document,
        _override("runtime.base_url", flags),
        content,
        token_file=_override("runtime.token_file", flags),
        location=openapi,
        origin="the config" if config_file is None else str(config_file),
    )


def _single_runtime(config_file: Path | None) -> dict[str, Any]:
    content = {} if config_file is None else read_file(config_file)
    if "runtimes" in content:
        raise ConfigError("--suggest: expected a config with runtime instead of runtimes")
    return content


def _override(path: str, flags: dict[str, Any]) -> str | None:
    """Return a text that overrides the config file: that of the flag, or of the environment; None for neither."""
    name = path.replace(".", "_")
    return flags[path.replace(".", "__")] or os.environ.get(f"{ENVIRONMENT_PREFIX}{name.upper()}") or None


@cli.command(short_help="Run only the embedded runtime, which plays a scenario.")
@click.option(
    "--web.listen-address", "address", default="127.0.0.1:8090", show_default=True, help="Address of the API."
)
@click.option(
    "--old-contract",
    is_flag=True,
    help="Have no list of the runs of all projects, nor of the failed records of all runs.",
)
@_with_scenario
def runtime(address: str, scenario: str, speed: float, seed: int, *, old_contract: bool) -> None:
    """Run only the embedded runtime: it plays a scenario and responds as a real runtime does."""
    from exporter import simulator

    async def play() -> None:
        engine = simulator.Engine(loaded, seed=seed, timeline=simulator.RealTimeline(speed))
        listener = listen(address)
        log.info("listening", url=url_of(listener), scenario=loaded.name, speed=speed, seed=seed)
        # The Date of its responses is the scenario's clock, so the server must not add its own.
        app = simulator.create_app(engine, lists_across_projects=not old_contract)
        await serve(app, listener, date_header=False)

    logs.configure("info", "logfmt")
    try:
        loaded = simulator.load_scenario(scenario)
    except simulator.ScenarioError as error:
        raise ConfigError(str(error)) from None
    asyncio.run(play())


@cli.command("demo", short_help="Start the whole stack and show its runs and pages.")
@_with_scenario
@click.option("--duration", metavar="DURATION", help="Stop after this much scenario time, such as 1h.")
def demo_command(scenario: str, speed: float, seed: int, duration: str | None) -> None:
    """Start the whole stack, from a runtime to Grafana, and show its runs and pages.

    A runtime and an exporter are part of this package; Prometheus, Alertmanager and Grafana are started if installed.
    """
    from exporter import demo, simulator

    if scenario not in simulator.shipped_scenarios():
        try:
            simulator.load_scenario(scenario)
        except simulator.ScenarioError as error:
            raise ConfigError(str(error)) from None
    try:
        seconds = None if duration is None else parse_duration(duration)
    except ValueError as error:
        raise ConfigError(f"--duration: {error}") from None
    print_for_people()
    asyncio.run(demo.run_demo(demo.ScenarioOptions(scenario, speed, seed), seconds))


@cli.command("healthcheck", short_help="Exit with 0 if the exporter responds, for containers.")
@click.argument("url", required=False)
def healthcheck_command(url: str | None) -> None:
    """Exit with 0 if URL responds, by default that of the exporter, with TLS or without: for checks of containers.

    The server's certificate is not verified, and a server that asks for a password or a certificate is healthy.
    """
    sys.exit(healthcheck.main([] if url is None else [url]))


@cli.command("pages", short_help="Receive and print the notifications of Alertmanager.")
@click.option(
    "--web.listen-address", "address", default="127.0.0.1:9099", show_default=True, help="Address to listen on."
)
def pages_command(address: str) -> None:
    """Receive notifications from Alertmanager and print them: a pager to try the alerts."""
    from exporter.demo import pages

    print_for_people()

    def show(alert: pages.Alert) -> None:
        try:
            click.echo(pages.as_block(alert))
        except OutputError:
            signal.raise_signal(signal.SIGTERM)  # ends the server, and `checked_output` raises the error again

    logs.configure("info", "logfmt")
    asyncio.run(serve(pages.create_app(show), listen(address)))


@cli.command("metrics-doc", short_help="Print the page that documents every metric.")
def metrics_doc() -> None:
    """Print the page that documents every metric (docs/metrics.md)."""
    click.echo(as_markdown(), nl=False)


@cli.command("config-schema", short_help="Print the JSON Schema of config files, for editors.")
def config_schema() -> None:
    """Print the JSON Schema of config files, for editors (exporter/config/config.schema.json)."""
    from exporter.config.json_schema import json_schema

    click.echo(json.dumps(json_schema(), indent=1))


def _web_config_file(settings: ExporterConfig) -> WebConfigFile | None:
    return WebConfigFile(Path(settings.web.config_file)) if settings.web.config_file else None


def _warnings(settings: ExporterConfig, web_config_file: WebConfigFile | None) -> list[str]:
    return warnings(settings) + (web_config_file.warnings() if web_config_file is not None else [])


THREADS = 64
"""Threads that wait, most of them for name servers: one that does not respond for a runtime must leave some for the
others. By default there are four more than processors."""

THREADS_END = 2.0
"""Seconds after everything else in which threads can end."""


async def _serve(settings: ExporterConfig, load_settings: Callable[[], ExporterConfig]) -> None:
    threads = ThreadPoolExecutor(THREADS)
    asyncio.get_running_loop().set_default_executor(threads)
    await warm_up()
    web_config_file = _web_config_file(settings)
    storage = Path(settings.storage.path) if settings.storage.path else None
    with contextlib.closing(listen(settings.web.listen_address)) as listener:
        exporter = Exporter(settings.runtimes, storage=storage)
        try:
            await _respond(exporter, listener, settings, load_settings, web_config_file)
        finally:
            await exporter.close()
    log.info("stopped")
    ending = threading.Thread(target=threads.shutdown, kwargs={"cancel_futures": True}, daemon=True)
    ending.start()
    ending.join(THREADS_END)
    if ending.is_alive():
        # Python would wait for them: for a name server that does not respond, or a pipe that nobody writes a config to.
        os._exit(0)


async def _respond(
    exporter: Exporter,
    listener: socket.socket,
    settings: ExporterConfig,
    load_settings: Callable[[], ExporterConfig],
    web_config_file: WebConfigFile | None,
) -> None:
    """Respond to requests and reload at SIGHUP, until a signal ends the process."""
    warned: set[str] = set()

    def warn(current: ExporterConfig) -> None:
        for warning in _warnings(current, web_config_file):
            if warning not in warned:
                warned.add(warning)
                log.warning("a secret is exposed", warning=warning)

    async def reload() -> None:
        try:
            # In a thread: a config that is a pipe is waited for.
            current = await asyncio.to_thread(load_settings)
            await exporter.reload(current.runtimes)
        except ConfigError as error:
            exporter.own.config_reloaded(ok=False)
            log.error("reload failed; keeping the previous config", error=str(error))
            raise
        log.info("config reloaded")
        warn(current)

    async def reload_or_stay() -> None:
        try:
            await reload()
        except ConfigError:
            return  # logged; a signal has no response

    tasks: set[asyncio.Task[None]] = set()

    def start(work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    app = create_app(exporter, reload=reload if settings.web.enable_lifecycle else None)
    urls = " ".join(config.runtime.base_url for config in settings.runtimes.values())
    scheme = "https" if web_config_file is not None and web_config_file.has_tls else "http"
    url, first = url_of(listener, scheme), "at the first scrape or probe"
    log.info("listening", url=url, version=__version__, reads=urls, first_read=first)
    warn(settings)
    await serve(
        app,
        listener,
        on_hangup=lambda: start(reload_or_stay(), "reload"),
        # Scrapes that wait for a read are answered at once.
        on_end=lambda: start(exporter.stop(), "stop"),
        web_config_file=web_config_file,
    )


async def _once(settings: ExporterConfig) -> int:
    exporter = Exporter(settings.runtimes)
    try:
        api_up = await exporter.refresh(max_wait=float("inf"))
        sys.stdout.write(str(await exporter.page()))
        if not api_up:
            # Last, since the page is long: the log lines above it are out of sight.
            sys.stdout.flush()
            print_error(f"spinner-exporter: {_why_unread(exporter)}")
    finally:
        await exporter.close()
    return 0 if api_up else EXIT_FAILED


def _why_unread(exporter: Exporter) -> str:
    unread = {name: monitored.reasons for name, monitored in exporter.runtimes.items() if not monitored.ready}
    texts = []
    for name, (first, *others) in ((name, reasons or ("see the log",)) for name, reasons in unread.items()):
        texts.append(f"runtime {name} cannot be read: {first}" + (f"; and {len(others)} more" if others else ""))
    return "; ".join(texts)


def _fail(message: str, status: int) -> None:
    print_error(f"spinner-exporter: {message}")
    sys.exit(status)
