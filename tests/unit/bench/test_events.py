"""Facts about the events that are measured with: they are what Sellfern sends."""

from pathlib import Path

from multidict import CIMultiDict

from shared.endpoints.union import parse_endpoints
from shared.sellfern import envelope, signature
from tests.bench import events
from tests.bench.requests_file import RequestsFile


def test_a_body_is_an_event_of_300_bytes_and_each_is_another() -> None:
    bodies = list(events.bodies(30))
    assert {len(body) for _, body in bodies} == {events.BODY_BYTES}
    decoded = [envelope.decode(body) for _, body in bodies]
    assert len({event.id for event in decoded}) == 30
    assert [event.organization_id for event in decoded] == [name for name, _ in bodies]


def test_a_request_verifies_against_the_endpoints_file(tmp_path: Path) -> None:
    path = events.write_endpoints(tmp_path)
    known = parse_endpoints(path.read_text(), path=path, environ={})
    organization, body = next(iter(events.bodies(1)))
    head, _, sent = events.request(organization, body).partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    endpoint = known[first.split()[1].rpartition("/")[2]]
    headers = CIMultiDict[str]()
    for field in fields:
        headers.add(*field.split(": ", 1))
    secrets = endpoint.active_secrets(0.0)
    signature.verify(endpoint.scheme, sent, headers, secrets, 0.0)
    assert endpoint.organization_id == organization
    assert int(headers["Content-Length"]) == len(sent)


def test_a_file_of_requests_gives_them_back_from_any_place(tmp_path: Path) -> None:
    requests = RequestsFile.write(tmp_path / "requests", 5)
    everything = requests.read(0)
    assert len(everything) == requests.number == 5
    assert all(request.startswith(b"POST /webhooks/") for request in everything)
    assert requests.read(3) == everything[3:]
