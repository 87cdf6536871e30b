"""Sends the requests of the doctor, and says why there is no response that can be used."""

from collections.abc import Iterable
from typing import NamedTuple

from exporter.config.api_description import ListFilter
from exporter.doctor.diagnosis import Check
from exporter.errors import ApiError, unforeseen
from exporter.runtime.client import RawResponse, RuntimeClient
from exporter.runtime.decoder import MALFORMED, Decoder, DecodeReport
from exporter.runtime.http_client import NoConnectionError, NotFoundError, PausedError, RefusedError
from exporter.runtime.layout import GoneError, ReportedError
from exporter.runtime.model import RunSnapshot
from exporter.runtime.rate_limits import Allowance
from exporter.sync.record_lists import NOT_LISTED


class Answer(NamedTuple):
    """A response, and what the description finds in it."""

    sample: RawResponse
    report: DecodeReport


class Requests:
    """The requests to one runtime. One cause fails one check."""

    def __init__(self, client: RuntimeClient, decoder: Decoder) -> None:
        self._client = client
        self._decoder = decoder
        self._not_found = self._has_responded = False
        """Whether a request was answered with 404, and whether one was answered otherwise."""
        self._silent_about: dict[str, str] = {}
        """Why a connection failed, with what it failed for first."""
        self.allowance: Allowance | None = None
        """The last rate limit that headers reported."""

    @property
    def found_nothing(self) -> bool:
        """Whether each request was answered with 404."""
        return self._not_found and not self._has_responded

    async def send(
        self,
        what: str,
        resource: str,
        run: RunSnapshot | None = None,
        *,
        project_id: str = "",
        restrictions: Iterable[ListFilter | None] = (),
        since: float | None = None,
        across: bool = False,
        may_lack: bool = False,
    ) -> Answer | Check:
        """Request a resource as `RuntimeClient.raw_response` does.

        Return the response, or a check named `what` that says why there is none. `may_lack`: that the runtime does not
        have what is requested is no failure.
        """
        try:
            sample = await self._client.raw_response(
                resource, run, project_id=project_id, restrictions=restrictions, since=since, across=across
            )
            self._has_responded = True
            report = self._decoder.explain(resource, sample.body)
        except PausedError as error:
            # What failed before is the cause, and its check has failed.
            return Check(what, None, str(error).removeprefix(f"{resource}: "))
        except (ApiError, *MALFORMED) as error:
            self._not_found |= isinstance(error, NotFoundError)
            self._has_responded |= not isinstance(error, NotFoundError)
            line = self._client.request_line(resource, run, project_id=project_id, across=across)
            if may_lack and isinstance(error, RefusedError) and error.status in (*NOT_LISTED, 404):
                return Check(what, None, f"the runtime does not list them: {_reason(resource, error)} ({line})")
            return self._failure(what, _reason(resource, error), error, line)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            return Check(what, False, unforeseen(error))
        self.allowance = sample.allowance or self.allowance
        return Answer(sample, report)

    def _failure(self, what: str, reason: str, error: Exception, line: str) -> Check:
        if isinstance(error, NoConnectionError):
            first = self._silent_about.setdefault(reason, what)
            if first != what:
                return Check(what, None, f"not checked: {reason}, as for {first}")
        return Check(what, False, f"{reason} ({line})")


def _reason(resource: str, error: Exception) -> str:
    reason = str(error).removeprefix(f"{resource}: ")
    if isinstance(error, ApiError | ReportedError | GoneError):
        return reason
    return mismatch(reason)


def mismatch(reason: object) -> str:
    """Return the finding about a response that cannot be decoded, for a reason."""
    return f"the response does not match its description: {reason}"
