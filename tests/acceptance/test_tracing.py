"""Facts about traces: from the request to the handler's commit, as a collector sees them."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from deploy.local.embedded_redis import EmbeddedRedis
from shared.errors import SettingsError
from shared.observe.tracing import open_tracing
from tests.acceptance.ingress_process import ingress
from tests.acceptance.process import environment, run, until
from tests.acceptance.worker_process import running
from tests.integration.workplace import body


@dataclass
class Collector:
    """Takes spans in, as a tracing backend does."""

    url: str = ""
    spans: list[tuple[str, Any]] = field(default_factory=list)

    @classmethod
    @contextlib.asynccontextmanager
    async def listening(cls) -> AsyncIterator["Collector"]:
        """A collector on a free port."""
        collector = cls()
        app = web.Application()
        app.router.add_post("/v1/traces", collector.take)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        collector.url = f"http://127.0.0.1:{site.port}"
        try:
            yield collector
        finally:
            await runner.cleanup()

    async def take(self, request: web.Request) -> web.Response:
        """Take note of spans and of the service that they are from."""
        export = ExportTraceServiceRequest.FromString(await request.read())
        for resource in export.resource_spans:
            names = {a.key: a.value.string_value for a in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [(names["service.name"], span) for span in scope.spans]
        return web.Response()

    def named(self, name: str) -> list[Any]:
        """The spans of a name, the earliest first."""
        found = [span for _, span in self.spans if span.name == name]
        return sorted(found, key=lambda span: span.start_time_unix_nano)

    async def await_named(self, name: str, number: int = 1) -> list[Any]:
        """Wait for so many spans of a name."""

        async def there() -> bool:
            return len(self.named(name)) >= number

        await until(there)
        return self.named(name)


def traced(server: EmbeddedRedis, collector: Collector, folder: Path) -> dict[str, str]:
    """The environment of programs that trace."""
    return environment(
        server.url,
        folder,
        TRACING="otlp",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_BSP_SCHEDULE_DELAY="50",
    )


async def test_a_trace_goes_from_the_request_to_the_commit_and_a_retry_links_to_it(
    tmp_path: Path,
) -> None:
    with EmbeddedRedis(appendfsync="always") as server:
        async with Collector.listening() as collector:
            environ = traced(server, collector, tmp_path)
            async with ingress(environ) as receiver, running(environ) as (worker,):
                signed = body("evt_1", data={"act": "fail", "times": 1})
                assert (await receiver.deliver(signed)).status == 202
                first, second = await collector.await_named("handle event", 2)
                (request,) = await collector.await_named("POST /webhooks/{endpoint}")
                (handled,) = await worker.logged("event_handled")
                (retried,) = await worker.logged("event_retried")
            services = {span.span_id: service for service, span in collector.spans}
    # The first attempt goes on with the request's trace, in another program.
    assert first.trace_id == request.trace_id
    assert first.parent_span_id == request.span_id
    assert (services[request.span_id], services[first.span_id]) == (
        "sellfern-ingress",
        "sellfern-worker",
    )
    # The second has one of its own, with a link.
    assert second.trace_id != request.trace_id
    assert [link.span_id for link in second.links] == [request.span_id]
    for attempt in (first, second):
        steps = {span.name for _, span in collector.spans if span.parent_span_id == attempt.span_id}
        assert steps == {"handler", "commit"}
    (enqueued,) = collector.named("enqueue")
    assert enqueued.parent_span_id == request.span_id
    assert retried["trace_id"] == first.trace_id.hex()
    assert handled["trace_id"] == second.trace_id.hex()
    failed, worked = collector.named("handler")
    assert (failed.status.code, worked.status.code) == (2, 0)
    told = repr(collector.spans)
    assert "evt_1" in told
    assert "whsec_" not in told
    assert "times" not in told  # nothing of the body


async def test_an_error_that_no_collector_could_read_loses_no_span(tmp_path: Path) -> None:
    with EmbeddedRedis(appendfsync="always") as server:
        async with Collector.listening() as collector:
            environ = {**traced(server, collector, tmp_path), "MAX_ATTEMPTS": "1"}
            async with ingress(environ) as receiver, running(environ) as (worker,):
                for act in ("garble", "count"):
                    await receiver.deliver(body(data={"act": act}))
                await worker.logged("event_dead")
                spans = await collector.await_named("handler", 2)
    told = [span.status.message for span in spans if span.status.code == 2]
    assert told == [r"ValueError: \ud800"]


async def test_a_refused_request_has_a_span_with_its_status_and_no_foreign_trace(
    tmp_path: Path,
) -> None:
    with EmbeddedRedis(appendfsync="always") as server:
        async with (
            Collector.listening() as collector,
            ingress(traced(server, collector, tmp_path)) as receiver,
        ):
            reply = await receiver.deliver(body(), secret="whsec_wrong")
            (span,) = await collector.await_named("POST /webhooks/{endpoint}")
            (line,) = await receiver.logged("delivery_refused")
    attributes = {each.key: each.value.int_value for each in span.attributes}
    assert attributes["http.response.status_code"] == reply.status == 401
    assert line["trace_id"] == span.trace_id.hex()


async def test_without_tracing_nothing_of_it_is_loaded_or_logged(tmp_path: Path) -> None:
    with EmbeddedRedis(appendfsync="always") as server:
        environ = environment(server.url, tmp_path)
        async with ingress(environ) as receiver, running(environ) as (worker,):
            await receiver.deliver(body("evt_1"))
            (handled,) = await worker.logged("event_handled")
            assert "trace_id" not in handled
    loads = (
        "import sys, ingress.cli, worker.cli; "
        "sys.exit('opentelemetry' in {name.split('.')[0] for name in sys.modules})"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", loads)
    assert await process.wait() == 0


def test_a_missing_extra_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    expected = "TRACING: expected off, or an installation with the extra"
    with pytest.raises(SettingsError, match=expected), open_tracing("otlp", "test"):
        pytest.fail("it was opened")


async def test_an_unknown_kind_of_tracing_is_one_line(tmp_path: Path) -> None:
    environ = environment("redis://127.0.0.1:1/0", tmp_path, TRACING="jaeger")
    for program in ("ingress", "worker"):
        ended = await run(program, environ=environ)
        assert ended.code == 2
        assert "TRACING: expected" in ended.stderr
        assert "jaeger" in ended.stderr
