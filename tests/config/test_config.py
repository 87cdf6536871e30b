"""Settings: their sources, which of them applies, and a one-line error for each mistake."""

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.config import ExporterConfig, ProjectsConfig, canonical_url, load, loading, parse_duration, split_address
from exporter.config.schema import FileConfig
from exporter.errors import ConfigError
from tests.builders import only_runtime

SMALLEST = 'runtime: {base_url: "http://127.0.0.1:8090"}\n'


def config(text: str, folder: Path, environ: dict[str, str] | None = None, **flags: object) -> ExporterConfig:
    file = folder / "exporter.yml"
    file.write_text(text)
    return load(file, environ=environ or {}, flags={name.replace("__", "."): value for name, value in flags.items()})


def mistake(text: str, folder: Path, environ: dict[str, str] | None = None, **flags: object) -> str:
    with pytest.raises(ConfigError) as error:
        config(text, folder, environ, **flags)
    message = str(error.value)
    assert "\n" not in message, "a mistake is one line"
    return message


def test_the_smallest_file_serves(tmp_path: Path) -> None:
    made = config('runtime: {base_url: "http://127.0.0.1:8090", token_file: /run/secrets/token}', tmp_path)
    only = only_runtime(made)
    assert only.runtime.token_file == "/run/secrets/token"
    assert (only.retention, only.sync.min_interval, made.web.listen_address) == (3600.0, 5.0, ":10095")


def test_the_environment_overrides_the_file_and_flags_override_both(tmp_path: Path) -> None:
    text = SMALLEST + "log: {level: debug}\nretention: 1h\nsync: {min_interval: 1s}\n"
    environ = {"SPINNER_EXPORTER_LOG_LEVEL": "warn", "SPINNER_EXPORTER_RETENTION": "2h"}
    made = config(text, tmp_path, environ, log__level="error")
    only = only_runtime(made)
    assert (made.log.level, only.retention, only.sync.min_interval) == ("error", 7200.0, 1.0)


def test_the_environment_alone_is_a_complete_config() -> None:
    environ = {
        "SPINNER_EXPORTER_RUNTIME_BASE_URL": "https://runtime.example.com",
        "SPINNER_EXPORTER_PROJECTS_INCLUDE": '["Sales.*"]',
        "SPINNER_EXPORTER_STATUSES": "{Parked: waiting}",
        "SPINNER_EXPORTER_WEB_ENABLE_LIFECYCLE": "true",
        "SPINNER_EXPORTER_SYNC_CONCURRENCY": "3",
        "OTHER": "is not ours",
    }
    made = load(None, environ=environ)
    only = only_runtime(made)
    assert only.projects.wanted("Sales EU")
    assert not only.projects.wanted("Support")
    assert only.statuses == {"Parked": "waiting"}
    assert (made.web.enable_lifecycle, only.sync.concurrency) == (True, 3)


@pytest.mark.parametrize(("path", "kind"), list(loading._leaves(FileConfig)))
def test_an_empty_variable_of_the_environment_counts_as_not_set(
    tmp_path: Path, path: tuple[str, ...], kind: object
) -> None:
    name = "SPINNER_EXPORTER_" + "_".join(path).upper()
    assert config(SMALLEST, tmp_path, {name: ""}) == config(SMALLEST, tmp_path), f"{name} of {kind}"


def test_the_variables_after_one_that_sets_nothing_count(tmp_path: Path) -> None:
    nothing = {
        "SPINNER_EXPORTER_RETENTION": "",
        "SPINNER_EXPORTER_CONFIG_FILE": "x",
        "SPINNER_EXPORTER_PORT": "tcp://h:1",
    }
    made = only_runtime(config(SMALLEST, tmp_path, {**nothing, "SPINNER_EXPORTER_SYNC_CONCURRENCY": "3"}))
    assert (made.retention, made.sync.concurrency) == (3600.0, 3)


@pytest.mark.parametrize(
    ("token", "auth"),
    [
        ("two words", {"type": "header"}),
        ("two words", {"type": "basic", "username": "u"}),
        ("\N{EURO SIGN} ", {"type": "basic", "username": "u"}),
        ("x" * 65_536, {}),
    ],
    ids=["a header", "a password", "a password outside ASCII", "the longest"],
)
def test_a_token_may_have_what_its_kind_can_carry(tmp_path: Path, token: str, auth: dict[str, str]) -> None:
    text = json.dumps({"runtime": {"base_url": "http://h", "auth": auth}})
    made = only_runtime(config(text, tmp_path, {"SPINNER_EXPORTER_RUNTIME_TOKEN": token}))
    assert made.runtime.token is not None
    assert made.runtime.token.reveal() == token


def test_a_mistake_does_not_suggest_to_put_the_token_into_the_file(tmp_path: Path) -> None:
    message = mistake("runtime: {base_url: 'http://h', qqq: 1}", tmp_path)
    assert "runtime.qqq: unknown key; known are base_url, " in message
    assert ", token_file, " in message
    assert ", token, " not in message


def test_a_preset_that_says_nothing_of_the_runtime_describes_no_api(tmp_path: Path) -> None:
    message = mistake(with_preset("retention: 2h\n", tmp_path), tmp_path)
    assert message == f"{tmp_path / 'exporter.yml'}: runtime.resources: is required"


def test_an_empty_variable_that_is_no_setting_is_a_mistake(tmp_path: Path) -> None:
    assert mistake(SMALLEST, tmp_path, {"SPINNER_EXPORTER_RETENTON": ""}).startswith(
        "SPINNER_EXPORTER_RETENTON: no such setting; did you mean SPINNER_EXPORTER_RETENTION?"
    )


def test_a_token_from_the_environment_is_never_shown() -> None:
    environ = {"SPINNER_EXPORTER_RUNTIME_BASE_URL": "http://h", "SPINNER_EXPORTER_RUNTIME_TOKEN": "cxg_secret"}
    made = load(None, environ=environ)
    token = only_runtime(made).runtime.token
    assert token is not None
    assert token.reveal() == "cxg_secret"
    assert "cxg_secret" not in repr(made) + str(token)


def test_patterns_match_the_whole_name_and_exclude_wins() -> None:
    chosen = ProjectsConfig(include=(re.compile("Sales|Support"),), exclude=(re.compile("Support"),))
    assert [name for name in ("Sales", "Sales EU", "Support") if chosen.wanted(name)] == ["Sales"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", r"expected settings such as runtime:"),
        ("- 1", r"expected settings such as runtime:"),
        ("runtime: [", r"line 1: not YAML"),
        ("\tx: 1", r"line 1: not YAML"),
        ('x: "\\U00110000"', r"exporter\.yml: not YAML$"),
        ('x: "\\UFFFFFFFF"', r"exporter\.yml: not YAML$"),
        (SMALLEST + 'projects: {include: ["\\ud800"]}', r"projects\.include: expected text that UTF-8 can encode"),
        (SMALLEST + 'statuses: {"\\0": running}', r"statuses: expected text without NUL"),
        (SMALLEST + SMALLEST, r"line 1: not YAML: duplicate key runtime"),
        ("{}", r"runtime\.base_url: is required; .*--runtime\.base-url"),
        ("runtime: {}", r"runtime\.base_url: is required"),
        ("runtime: null", r"runtime: expected a mapping of keys, got nothing"),
        ("runtime: {base_url: 127.0.0.1:8090}", r"runtime\.base_url: expected a URL such as http://"),
        ("runtime: {base_url: 'ftp://h'}", r"runtime\.base_url: expected a URL"),
        ("runtime: {base_url: 'http://u:pw-secret@h'}", r"runtime\.base_url: must not contain a user or password"),
        ("runtime: {base_url: 'http://h?x=1'}", r"runtime\.base_url: expected a URL without a query"),
        ("runtime: {base_url: 'http://h/#x'}", r"runtime\.base_url: expected a URL without a query or fragment"),
        ("runtime: {base_url: 'http://u@h'}", r"runtime\.base_url: must not contain a user or password"),
        ("runtime: {base_url: 'http://:secret@h'}", r"runtime\.base_url: must not contain a user or password"),
        ("runtime: {base_url: 'http://h:0'}", r"runtime\.base_url: expected a URL such as http://"),
        ("runtime: {base_url: 'http://:80'}", r"runtime\.base_url: expected a URL such as http://"),
        ("runtime: {base_url: 'http://h', proxy: 'ftp://h'}", r"runtime\.proxy: expected a URL such as http://"),
        ("runtime: {base_url: 5}", r"runtime\.base_url: expected text, got a whole number"),
        ("runtime: {base_url: 'http://h', token: cxg_secret}", r"runtime\.token: a token does not belong in this file"),
        ("runtime: {base_url: 'http://h', timeout: 0s}", r"runtime\.timeout: expected a duration above zero"),
        ("runtim: {}", r"runtim: unknown key; did you mean runtime\?"),
        (SMALLEST + "sync: {min_intervall: 5s}", r"sync\.min_intervall: unknown key; did you mean min_interval\?"),
        (SMALLEST + "sync: {qqq: 5s}", r"sync\.qqq: unknown key; known are min_interval"),
        (SMALLEST + "sync: {min_interval: 5}", r"sync\.min_interval: expected a duration such as 5s or 1h30m, got 5"),
        (SMALLEST + "sync: {min_interval: 5 s}", r"sync\.min_interval: expected a duration .*got '5 s'"),
        (SMALLEST + "sync: {min_interval: ''}", r"sync\.min_interval: expected a duration"),
        (SMALLEST + "retention: -5s", r"retention: expected a duration .*got '-5s'"),
        (SMALLEST + "retention: .inf", r"retention: expected a duration"),
        (SMALLEST + "sync: {concurrency: 0}", r"sync\.concurrency: expected a number from 1 to 256"),
        (SMALLEST + "sync: {concurrency: many}", r"sync\.concurrency: expected a whole number, got text"),
        (SMALLEST + "sync: {stale_after: 1s}", r"sync\.stale_after: expected at least min_interval"),
        (SMALLEST + "sync: 5", r"sync: expected a mapping of keys, got a whole number"),
        (SMALLEST + "statuses: {Parked: wait}", r"statuses\.Parked: expected one of queued, .*, got 'wait'"),
        (SMALLEST + "projects: {include: ['(']}", r"projects\.include\[0\]: expected a regular expression, got '\('"),
        (SMALLEST + "projects: {include: Sales}", r"projects\.include: expected a list, got text"),
        (SMALLEST + "limits: {runs: 0}", r"limits\.runs: expected a whole number, 1 to 1,000,000,000,000"),
        (SMALLEST + "limits: {runs: .nan}", r"limits\.runs: expected a whole number"),
        (SMALLEST + "limits: {label_length: 1}", r"limits\.label_length: expected a whole number, 16 to 1,0"),
        (SMALLEST + "stalls: {false_pages: 0.009}", r"stalls\.false_pages: expected a number from 0\.01 to 100"),
        (SMALLEST + "stalls: {false_pages: 100.01}", r"stalls\.false_pages: expected a number from 0\.01 to 100"),
        (SMALLEST + "stalls: {floor: 2h, ceiling: 1h}", r"stalls\.ceiling: expected at least the floor"),
        (
            SMALLEST + "spinners: [{stall_floor: 2h, stall_ceiling: 1h}]",
            r"spinners\[0\]\.stall_ceiling: expected at least",
        ),
        (SMALLEST + "web: {listen_address: '10095'}", r"web\.listen_address: expected host:port or :port"),
        (SMALLEST + "web: {enable_lifecycle: 1}", r"web\.enable_lifecycle: expected true or false"),
        (SMALLEST + "log: {level: loud}", r"log\.level: expected one of debug, info, warn, error, got 'loud'"),
        (SMALLEST + "log: {format: xml}", r"log\.format: expected one of logfmt, json"),
    ],
)
def test_a_mistake_names_the_file_the_place_and_the_expected_form(tmp_path: Path, text: str, expected: str) -> None:
    message = mistake(text, tmp_path)
    assert message.startswith(str(tmp_path / "exporter.yml"))
    assert re.search(expected, message), message
    assert "secret" not in message


def test_a_mistake_in_a_variable_or_a_flag_names_that(tmp_path: Path) -> None:
    assert mistake(SMALLEST, tmp_path, {"SPINNER_EXPORTER_RETENTION": "soon"}).startswith(
        "SPINNER_EXPORTER_RETENTION: "
    )
    assert mistake(SMALLEST, tmp_path, log__level="loud").startswith("--log.level: ")


@pytest.mark.parametrize(
    ("text", "environ", "expected"),
    [
        (
            "runtime: [{base_url: 'http://h'}]",
            {"RUNTIME_TOKEN_FILE": "/t"},
            "runtime: expected a mapping of keys, got a l",
        ),
        (SMALLEST + "storage: /data", {"STORAGE_PATH": "/x"}, "storage: expected a mapping of keys, got text"),
        (SMALLEST + "log: debug", {"LOG_LEVEL": "info"}, "log: expected a mapping of keys, got text"),
        (SMALLEST + "sync: 5s", {"SYNC_MIN_INTERVAL": "5s"}, "sync: expected a mapping of keys, got text"),
        (
            "runtime: {base_url: 'http://h', tls: ca.pem}",
            {"RUNTIME_TLS_CA_FILE": "x"},
            "runtime.tls: expected a mapping",
        ),
        ("runtime: {base_url: 'http://h', headers: [X-A: b]}", {}, "runtime.headers: expected a mapping"),
        (
            "runtime: {base_url: 'http://h', resources: {jobs: /runs}}",
            {"RUNTIME_RESOURCES_JOBS_PATH": "/x"},
            "runtime.resources.jobs: expected a mapping of keys, got text",
        ),
    ],
)
def test_a_section_that_is_no_mapping_is_a_mistake_whatever_overrides_its_keys(
    tmp_path: Path, text: str, environ: dict[str, str], expected: str
) -> None:
    """It would be replaced by what the environment says, and what the file says would be lost."""
    set_too = {f"SPINNER_EXPORTER_{name}": value for name, value in environ.items()}
    assert mistake(text, tmp_path, set_too).startswith(f"{tmp_path / 'exporter.yml'}: {expected}")


PRESET = "{resources: {health: absent, projects: absent, job: absent, records: absent, usage: absent, jobs: {path: /x}}"
"""The section `runtime` of a preset, without its end."""


def with_preset(preset: str, folder: Path) -> str:
    (folder / "ours.yml").write_text(preset)
    return f"runtime: {{base_url: 'http://h', preset: '{folder / 'ours.yml'}'}}\n"


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        (PRESET + ", token: cxg_secret}", "runtime.token: a token does not belong in this file"),
        (PRESET + ", preset: airflow}", "runtime.preset: not allowed in a preset"),
        (PRESET + ", tiemout: 5s}", "runtime.tiemout: unknown key; did you mean timeout?"),
        (PRESET + ", timeout: 5}", "runtime.timeout: expected a duration such as 5s or 1h30m, got 5"),
        (PRESET + ", headers: [x]}", "runtime.headers: expected a mapping of keys, got a list"),
        (
            PRESET.replace("path: /x", "path: x") + "}",
            "runtime.resources.jobs.path: expected a path that begins with /",
        ),
        (PRESET.replace("path: /x", "items: x") + "}", "runtime.resources.jobs.path: is required"),
        (PRESET.replace("path: /x", "path: /x, fields: {id: 5}") + "}", "runtime.resources.jobs.fields: expected"),
        ("[a]", "runtime: expected a mapping of keys, got a list"),
        (PRESET + "}\nretention: soon", "retention: expected a duration"),
        (PRESET + "}\nprojects: {include: ['(']}", "projects.include[0]: expected a regular expression"),
        (PRESET + "}\nstorage: {path: /data}", "storage: unknown key; known are runtime, limits, projects"),
        (PRESET + "}\nstatusses: {}", "statusses: unknown key; did you mean statuses?"),
    ],
)
def test_a_mistake_in_a_preset_of_one_s_own_names_its_file(tmp_path: Path, preset: str, expected: str) -> None:
    """Also the token is one, which no file but its own may have."""
    message = mistake(with_preset(f"runtime: {preset}", tmp_path), tmp_path)
    assert message.startswith(f"{tmp_path / 'ours.yml'}: {expected}")
    assert "secret" not in message


@pytest.mark.parametrize(
    ("more", "environ", "expected"),
    [
        ("retention: soon", {}, "{file}: retention: expected a duration"),
        ("retenton: 1h", {}, "{file}: retenton: unknown key"),
        ("", {"RETENTION": "soon"}, "SPINNER_EXPORTER_RETENTION: retention: expected a duration"),
        ("sync: {concurrency: 0}", {}, "{file}: sync.concurrency: expected a number from 1 to 256"),
        ("", {"RUNTIME_PRESET": "airfow"}, "SPINNER_EXPORTER_RUNTIME_PRESET: runtime.preset: expected one of"),
    ],
)
def test_a_mistake_in_what_overrides_a_preset_does_not_name_the_preset(
    tmp_path: Path, more: str, environ: dict[str, str], expected: str
) -> None:
    text = with_preset(f"runtime: {PRESET}}}\nretention: 1h\nsync: {{concurrency: 3}}", tmp_path)
    set_too = {f"SPINNER_EXPORTER_{name}": value for name, value in environ.items()}
    message = mistake(text + more, tmp_path, set_too)
    assert message.startswith(expected.format(file=tmp_path / "exporter.yml"))


def test_a_flag_does_not_replace_a_section_that_is_no_mapping_either(tmp_path: Path) -> None:
    message = mistake(SMALLEST + "web: ':10095'", tmp_path, web__listen_address=":1")
    assert message == f"{tmp_path / 'exporter.yml'}: web: expected a mapping of keys, got text"


def test_the_environment_completes_a_section_without_keys(tmp_path: Path) -> None:
    environ = {"SPINNER_EXPORTER_RUNTIME_BASE_URL": "http://h", "SPINNER_EXPORTER_SYNC_MIN_INTERVAL": "7s"}
    made = only_runtime(config("runtime:\nsync: {concurrency: 3}\nlog:\n", tmp_path, environ))
    assert (made.runtime.base_url, made.sync.min_interval, made.sync.concurrency) == ("http://h", 7.0, 3)


def test_an_unknown_variable_is_an_error(tmp_path: Path) -> None:
    message = mistake(SMALLEST, tmp_path, {"SPINNER_EXPORTER_RETENTON": "1h"})
    assert message == "SPINNER_EXPORTER_RETENTON: no such setting; did you mean SPINNER_EXPORTER_RETENTION?"


def test_a_variable_that_is_not_text_has_to_be_yaml(tmp_path: Path) -> None:
    message = mistake(SMALLEST, tmp_path, {"SPINNER_EXPORTER_LIMITS_RUNS": "[1"})
    assert message == "SPINNER_EXPORTER_LIMITS_RUNS: expected a YAML value such as 8, true or [a, b]"


def test_variables_that_kubernetes_sets_for_a_service_are_ignored(tmp_path: Path) -> None:
    """As in a pod beside a Service called spinner-exporter, and one called spinner-exporter-web."""
    environ = {
        f"SPINNER_EXPORTER_{service}{name}": value
        for service in ("", "WEB_")
        for name, value in {
            "SERVICE_HOST": "10.96.3.7",
            "SERVICE_PORT": "10095",
            "SERVICE_PORT_HTTP": "10095",
            "PORT": "tcp://10.96.3.7:10095",
            "PORT_10095_TCP": "tcp://[fd00::7]:10095",
            "PORT_10095_TCP_PROTO": "tcp",
            "PORT_10095_TCP_PORT": "10095",
            "PORT_10095_TCP_ADDR": "fd00::7",
            "PORT_53_UDP": "udp://10.96.3.7:53",
        }.items()
    }
    file = tmp_path / "exporter.yml"
    file.write_text(SMALLEST)
    assert load(file, environ=environ) == load(file, environ={})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "10095"),
        ("PORT", "http://10.96.3.7"),
        ("SERVICE_HOST", "runtime"),
        ("SERVICE_PORT", "http"),
        ("PORT_HTTP_TCP", "tcp://10.96.3.7:10095"),
        ("SERVICES", "tcp://10.96.3.7:10095"),
    ],
)
def test_variables_that_only_resemble_those_of_a_service_are_mistakes(name: str, value: str, tmp_path: Path) -> None:
    message = mistake(SMALLEST, tmp_path, {f"SPINNER_EXPORTER_{name}": value})
    assert message.startswith(f"SPINNER_EXPORTER_{name}: no such setting")


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yml: cannot be read: No such file"):
        load(tmp_path / "nowhere.yml", environ={})
    (tmp_path / "latin.yml").write_bytes(b"runtime: \xff")
    with pytest.raises(ConfigError, match="expected UTF-8"):
        load(tmp_path / "latin.yml", environ={})


@pytest.mark.parametrize("header", ["Cookie", "AUTHORIZATION"])
def test_a_header_that_is_a_secret_is_a_mistake(tmp_path: Path, header: str) -> None:
    message = mistake(f"runtime: {{base_url: 'http://h', headers: {{{header}: cxg_1}}}}", tmp_path)
    assert "runtime.headers: a secret does not belong in this file" in message
    assert "cxg_1" not in message


@pytest.mark.parametrize(
    "text",
    [
        SMALLEST + "spinners: [{stall_ceiling: 1s}, {stall_floor: 1h}]",
        SMALLEST + "projects: {on_probe: true}",
        SMALLEST + "storage: {path: /var/lib/spinner}",
        "runtime: {base_url: 'http://h', proxy: 'socks5://h:1'}",
        "runtime: {base_url: 'http://h', headers: {X-Team: sales}}",
        "runtime: {base_url: 'https://h:65535/eu'}",
    ],
)
def test_what_looks_like_a_mistake_and_is_none_is_accepted(tmp_path: Path, text: str) -> None:
    config(text, tmp_path)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("0.5s", 0.5),
        ("2d", 172800),
        ("1w", 604800),
        ("1y", 31536000),
        ("0", 0),
        ("100y", 100 * 365 * 86400),
    ],
)
def test_durations_are_written_as_prometheus_writes_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@given(st.text(max_size=10))
def test_an_invalid_duration_is_an_error(text: str) -> None:
    try:
        assert parse_duration(text) >= 0
    except ValueError:
        return
    assert re.fullmatch(r"0|([\d.]+(y|w|d|h|m|s|ms))+", text)


@pytest.mark.parametrize(
    ("address", "parts"),
    [(":65535", ("", 65535)), ("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:80", ("::1", 80)), ("host:80", ("host", 80))],
)
def test_an_address_is_split(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["", "host", "host:", "host:x", ":65536", ":-1", "a b:80"])
def test_an_invalid_address_is_an_error(address: str) -> None:
    with pytest.raises(ValueError, match="expected host:port"):
        split_address(address)


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("HTTPS://Runtime.Example.com:443/api/", "https://runtime.example.com/api"),
        ("http://runtime.example.com:80", "http://runtime.example.com"),
        ("http://runtime.example.com:443/", "http://runtime.example.com:443"),
        ("https://[2001:DB8::1]:8443/x//", "https://[2001:db8::1]:8443/x"),
    ],
)
def test_spellings_of_a_url_have_one_canonical_form(url: str, canonical: str) -> None:
    assert canonical_url(url) == canonical


def test_a_config_can_come_through_a_pipe() -> None:
    """As from `check-config <(command)` in a shell."""
    reading, writing = os.pipe()
    os.write(writing, b"runtime: {base_url: 'http://runtime.test'}")
    os.close(writing)
    try:
        assert only_runtime(load(Path(f"/dev/fd/{reading}"), environ={})).runtime.base_url == "http://runtime.test"
    finally:
        os.close(reading)


@pytest.mark.parametrize(
    ("name", "proposed"),
    [
        ("RUNTIME_URL", "RUNTIME_BASE_URL"),
        ("RUNTIME_API_URL", "RUNTIME_BASE_URL"),
        ("RUNTIME_BASEURL", "RUNTIME_BASE_URL"),
        ("BASE_URL", "RUNTIME_BASE_URL"),
        ("WEB_LISTEN", "WEB_LISTEN_ADDRESS"),
        ("LOG_LEVLE", "LOG_LEVEL"),
        ("XYZZY", None),
    ],
)
def test_whole_words_decide_which_variable_is_proposed(name: str, proposed: str | None) -> None:
    with pytest.raises(ConfigError) as error:
        load(None, environ={f"SPINNER_EXPORTER_{name}": "x"})
    hint = f"; did you mean SPINNER_EXPORTER_{proposed}?" if proposed else ""
    assert str(error.value) == f"SPINNER_EXPORTER_{name}: no such setting{hint}"


@pytest.mark.parametrize(
    ("key", "proposed"), [("url", "base_url"), ("baseUrl", "base_url"), ("tokens", "token_file"), ("header", "headers")]
)
def test_whole_words_decide_which_key_is_proposed_and_never_the_token(key: str, proposed: str, tmp_path: Path) -> None:
    (tmp_path / "x.yml").write_text(f'runtime: {{base_url: "http://h", {key}: x}}')
    with pytest.raises(ConfigError, match=f"runtime.{key}: unknown key; did you mean {re.escape(proposed)}"):
        load(tmp_path / "x.yml", environ={})
