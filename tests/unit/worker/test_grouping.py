"""Facts about which failures are of one cause: as handlers' libraries tell of them."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.worker.test_tracebacks import plain, raised
from worker.grouping import ANY, cause_of, normalized
from worker.tracebacks import traceback_of

KINDS: dict[str, list[str]] = {
    "httpx, not found": [
        (
            "HTTPStatusError: Client error '404 Not Found' for url 'https://erp.example/v1/orders/1'\n"
            "For more information check: https://developer.mozilla.org/en-US/docs/Web/HTTP/Status/404"
        ),
        "HTTPStatusError: Client error '404 Not Found' for url 'https://erp.example/v1/orders/83?a'",
        (
            "HTTPStatusError: Client error '404 Not Found' for url "
            "'https://erp.example/v1/orders/ord_9f3'"
        ),
    ],
    "httpx, not found, of customers": [
        "HTTPStatusError: Client error '404 Not Found' for url 'https://erp.example/v1/customers/1'",
        "HTTPStatusError: Client error '404 Not Found' for url 'https://erp.example/v1/customers/2/'",
    ],
    "httpx, not found, elsewhere": [
        "HTTPStatusError: Client error '404 Not Found' for url 'https://crm.example/v1/orders/1'",
        "HTTPStatusError: Client error '404 Not Found' for url 'https://crm.example/v1/orders/2'",
    ],
    "httpx, unavailable": [
        (
            "HTTPStatusError: Server error '503 Service Unavailable' for url "
            "'https://erp.example/v1/orders/1'"
        ),
        (
            "HTTPStatusError: Server error '503 Service Unavailable' for url "
            "'https://erp.example/v1/orders/f00dfeed'"
        ),
    ],
    "httpx, too many": [
        "HTTPStatusError: Client error '429 Too Many Requests' for url "
        f"'https://erp.example/v1/orders/{number}'"
        for number in (7, 8)
    ],
    "httpx, no connection": ["ConnectError: All connection attempts failed"],
    "httpx, no name": ["ConnectError: [Errno -2] Name or service not known"],
    "httpx, too late": ["ReadTimeout: "],
    "requests, server error": [
        "HTTPError: 500 Server Error: Internal Server Error for url: https://erp.example/items/12",
        "HTTPError: 500 Server Error: Internal Server Error for url: https://erp.example/items/9?q=1",
    ],
    "requests, bad gateway": [
        "HTTPError: 502 Server Error: Bad Gateway for url: https://erp.example/items/12",
        "HTTPError: 502 Server Error: Bad Gateway for url: https://erp.example/items/13",
    ],
    "urllib3, no connection": [
        "MaxRetryError: HTTPSConnectionPool(host='erp.example', port=443): Max retries exceeded "
        f"with url: /orders/{number} (Caused by NewConnectionError('<urllib3.connection."
        f"HTTPSConnection object at 0x7f{number}a2b>: Failed to establish a new connection: "
        "[Errno 111] Connection refused'))"
        for number in (1001, 78)
    ],
    "aiohttp, unavailable": [
        "ClientResponseError: 503, message='Service Unavailable', "
        f"url='https://erp.example/orders/{number}'"
        for number in (1, 22)
    ],
    "aiohttp, forbidden": [
        f"ClientResponseError: 403, message='Forbidden', url='https://erp.example/orders/{number}'"
        for number in (1, 22)
    ],
    "aiohttp, no connection": [
        "ClientConnectorError: Cannot connect to host erp.example:443 ssl:default "
        f"[Connect call failed ('10.0.{number}.7', 443)]"
        for number in (1, 22)
    ],
    "psycopg, twice": [
        'UniqueViolation: duplicate key value violates unique constraint "orders_pkey"\n'
        f"DETAIL:  Key (id)=({number}) already exists."
        for number in (1, 22)
    ],
    "psycopg, twice, of lines": [
        (
            'UniqueViolation: duplicate key value violates unique constraint "lines_pkey"\n'
            "DETAIL:  Key (id)=(1) already exists."
        )
    ],
    "psycopg, no table": [
        'UndefinedTable: relation "orders" does not exist\nLINE 1: INSERT INTO orders',
        'UndefinedTable: relation "orders" does not exist\nLINE 3: SELECT',
    ],
    "psycopg, no integer": [
        'InvalidTextRepresentation: invalid input syntax for type integer: "12a"',
        'InvalidTextRepresentation: invalid input syntax for type integer: "A-17"',
    ],
    "psycopg, no server": [
        f'OperationalError: connection to server at "10.1.2.{n}", port 5432 failed: refused'
        for n in (3, 144)
    ],
    "psycopg, deadlock": [
        f"DeadlockDetected: deadlock detected\nDETAIL:  Process {n} waits for ShareLock"
        for n in (31, 7788)
    ],
    "SQLAlchemy, twice": [
        "IntegrityError: (sqlalchemy.dialects.postgresql.asyncpg.IntegrityError) <class "
        "'asyncpg.exceptions.UniqueViolationError'>: duplicate key value violates unique "
        f'constraint "orders_pkey"\nDETAIL:  Key (id)=({n}) already exists.\n[SQL: INSERT INTO …]'
        for n in (3, 144)
    ],
    "SQLAlchemy, locked": [
        f"OperationalError: (sqlite3.OperationalError) database is locked\n[parameters: ({n},)]"
        for n in (3, 144)
    ],
    "SQLAlchemy, no room in the pool": [
        f"TimeoutError: QueuePool limit of size {n} overflow 10 reached, connection timed out, "
        "timeout 30.00 (Background on this error at: https://sqlalche.me/e/20/3o7r)"
        for n in (3, 5)
    ],
    "a key that isn't there": ["KeyError: 'order_id'"],
    "another key": ["KeyError: 'sku'"],
    "a key with a number": ["KeyError: 'address1'"],
    "no such order": [f"KeyError: 'ord_{n}'" for n in ("12", "9f3c11d0", "NffrFeUfNVpQxz")],
    "an index": ["IndexError: list index out of range"],
    "no attribute": ["AttributeError: 'NoneType' object has no attribute 'total'"],
    "another attribute": ["AttributeError: 'NoneType' object has no attribute 'lines'"],
    "an object without an attribute": [
        f"TypeError: <shop.Order object at 0x{n}> is not subscriptable"
        for n in ("7f1c2d3e4f50", "55aa9c")
    ],
    "json, nothing": [
        f"JSONDecodeError: Expecting value: line {n} column 1 (char {n - 1})" for n in (1, 144)
    ],
    "json, no comma": [
        f"JSONDecodeError: Expecting ',' delimiter: line {n} column 1 (char {n})" for n in (2, 33)
    ],
    "msgspec, a field": ["ValidationError: Object missing required field `order_id`"],
    "msgspec, a type": [
        f"ValidationError: Expected `int`, got `str` - at `$.lines[{n}].quantity`" for n in (0, 31)
    ],
    "pydantic": [
        "ValidationError: 2 validation errors for Order\nlines.0.sku\n  Field required [type=m",
        "ValidationError: 1 validation error for Order\nlines.31.sku\n  Field required [type=m",
    ],
    "pydantic, another field": [
        "ValidationError: 1 validation error for Order\ntotal\n  Field required [type=missing"
    ],
    "pydantic, no number": [
        "ValidationError: 1 validation error for Order\ntotal\n  Input should be a valid number"
    ],
    "msgspec, a choice": [
        f"ValidationError: Invalid enum value '{n}' - at `$.status`"
        for n in ("paid", "on-hold", "")
    ],
    "msgspec, another choice": ["ValidationError: Invalid enum value 'x' - at `$.lines[0].unit`"],
    "ssl, expired": [
        "SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
        f"certificate has expired (_ssl.c:{n})"
        for n in (1006, 997)
    ],
    "ssl, another name": [
        "SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
        f"Hostname mismatch, certificate is not valid for 'erp.example'. (_ssl.c:{n})"
        for n in (1006, 997)
    ],
    "too long": [f"the handler took longer than {n} s" for n in ("30", "0.5", "60")],
    "timeout": ["TimeoutError: "],
    "redis": [
        f"ConnectionError: Error {n} connecting to cache.internal:6379. Connection refused."
        for n in (111, 61)
    ],
    "a broken pipe": ["BrokenPipeError: [Errno 32] Broken pipe"],
    "decoding": [
        f"UnicodeDecodeError: 'utf-8' codec can't decode byte 0x{n:x} in position {n}: "
        "invalid start byte"
        for n in (0xFF, 0x92)
    ],
    "a decimal": [
        "InvalidOperation: [<class 'decimal.ConversionSyntax'>]",
    ],
    "a number": [
        f"ValueError: invalid literal for int() with base 10: '{n}'"
        for n in ("abc", "", "12,5", "1 000", "drei")
    ],
    "a float": [
        f"ValueError: could not convert string to float: {n}" for n in ("'abc'", '"it\'s"', "''")
    ],
    "an ISO date": [
        f"ValueError: Invalid isoformat string: '{n}'" for n in ("heute", "2026-11-29T10:00:00Z")
    ],
    "a choice": [
        f"ValueError: '{n}' is not a valid OrderStatus" for n in ("paid", "on-hold", "paid ", "")
    ],
    "another set of choices": ["ValueError: 'paid' is not a valid Currency"],
    "Django, no number": [
        f"ValueError: Field 'id' expected a number but got '{n}'." for n in ("abc", "ord_12xyz")
    ],
    "Django, no number, of lines": ["ValueError: Field 'line' expected a number but got 'abc'."],
    "Django, no UUID": [
        f"ValidationError: ['“{n}” is not a valid UUID.']" for n in ("abc", "17-x", "")
    ],
    "an argument that is missing": [
        "TypeError: save() missing 1 required positional argument: 'order'"
    ],
    "another argument that is missing": [
        "TypeError: save() missing 1 required positional argument: 'customer'"
    ],
    "asyncpg, an argument": [
        "DBAPIError: (sqlalchemy.dialects.postgresql.asyncpg.Error) <class 'asyncpg.exceptions."
        f"DataError'>: invalid input for query argument $1: '{n}' ('str' object cannot be "
        "interpreted as an integer)\n[SQL: SELECT …"
        for n in ("abc", "ORD-88-x")
    ],
    "IPv6": [
        f"ErpError: no route to {n}"
        for n in ("::1", "2001:db8::8a2e:370:7334", "[2001:db8::1]:443", "fe80::1%eth0", "10.0.0.1")
    ],
    "C++": ["ErpError: core dumped in Core::Beef of erp::Api::v2"],
    "colours": [
        f"ErpError: \x1b[{n}mrefused\x1b[0m by the warehouse" for n in ("31", "1;31", "38;5;196")
    ],
    "a temporary file": [
        f"FileNotFoundError: [Errno 2] No such file or directory: '/tmp/{n}/order.xml'"
        for n in ("tmpab12_x9", "tmpqwertyui", "tmpk3j2h1z0")
    ],
    "a token": [
        f"ErpError: token {n} refused"
        for n in (
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-DEF_123",
            "eyJ0eXAiOiJKV1Qi.eyJhIjox.Zz",
        )
    ],
    "a German one": [
        f"ErpError: Beleg {n} vom {day}: Buchungsperiode geschlossen"
        for n, day in (("RE-2026-17", "29.11.2026"), ("4", "1. März 2026"), ("5", "30. Mai 2026"))
    ],
    "another German one": [
        f"ErpError: Betrag {n} übersteigt das Limit" for n in ("1.234,50 €", "12 €", "1.000.000 €")
    ],
    "a share": [f"ErpError: discount of {n} is too much" for n in ("5%", "5 %", "12.5\u00a0%")],
    "a price": [f"ErpError: price {n} is too low" for n in ("5€", "5,00 €", "1.000,00\u00a0€")],
    "a price, the unit first": [f"ErpError: price {n} is too low" for n in ("$5", "$ 5.00")],
    "a telephone": [
        f"ErpError: can't ring {n}, which is busy"
        for n in (
            "030 123456",
            "(030) 123456",
            "+49 (0)30 123-456",
            "(555) 123-4567",
            "+49(0)30/12345",
        )
    ],
    "a Japanese one": [f"ErpError: 注文{n}が見つかりません" for n in ("123", "ORD-98765")],
    "another Japanese one": [f"ErpError: 注文{n}は取り消されました" for n in ("123", "98765")],
    "a megabyte": [f"ErpError: dump of {n} " + "y z " * (1 << 18) for n in (1, 22)],
    "a date": [
        f"ValueError: time data '{text}' does not match format '%Y-%m-%d'"
        for text in ("2026-11-29 10:00:00", "29.11.2026")
    ],
    "card declined": [
        f"CardError: Request req_{n}: Your card was declined."
        for n in ("k2N8sd82Hdj1s", "LqXzPwTaRkqZBn", "00017")
    ],
    "card expired": [
        f"CardError: Request req_{n}: Your card has expired." for n in ("k2N8sd82Hdj1s", "X91jdla")
    ],
    "no such customer": [
        f"InvalidRequestError: No such customer: 'cus_{n}'" for n in ("NffrFeUfNV2Hib", "9s8FeU")
    ],
    "no such price": [
        f"InvalidRequestError: No such price: 'price_{n}'" for n in ("1NffrFeUfNV2Hib", "1Ma8FeU")
    ],
    "an idempotency key": [
        "IdempotencyError: Keys for idempotent requests can only be used with the same parameters "
        f"they were first used with. Try using a key other than '{n}'"
        for n in ("0f3c6f3e-2f0b-4a8e-9f3c-3f1b2c4d5e6f", "5d1f9a7c-0000-4a8e-9f3c-aaaabbbbcccc")
    ],
    "a reject, of an order": [
        f"order {n} has been cancelled" for n in ("4711", "SO-1001", "01ARZ3NDEKTSV4RRFFQ69G5FAV")
    ],
    "a reject, of its lines": [f"order {n} has no lines" for n in (1, 20)],
    "a reject, of a customer": [
        f"customer {n} is unknown to the ERP"
        for n in ("ada@shop.example", "b.w+1@mail.example", "o'neil@x.io")
    ],
    "a reject, of a name": [
        f"customer {n} must not be billed"
        for n in ("'Ada Lovelace'", "'Jean-Luc van Dam'", "'ACME GmbH'", "'Öztürk & Söhne'")
    ],
    "a reject, of a day": [
        f"booked for {n}, which is over"
        for n in ("2026-11-29", "Sun, 29 Nov 2026 18:00:00 GMT", "29 Nov 2026", "2025-01-01T10:00Z")
    ],
    "a reject, of many": [
        "unknown: [ord_1]",
        "unknown: [ord_1, ord_22]",
        "unknown: [ord_1, ord_22, ord_3f]",
    ],
    "an answer of the ERP": [
        f"ErpError: status 422 for document {n}: period is closed" for n in ("D-1", "D-22/7")
    ],
    "another answer of the ERP": [
        f"ErpError: status 409 for document {n}: period is closed" for n in ("D-1", "D-22/7")
    ],
    "grpc": ["AioRpcError: StatusCode.UNAVAILABLE: failed to connect to all addresses"],
    "grpc, in full": [
        "AioRpcError: <AioRpcError of RPC that terminated with:\n\tstatus = StatusCode.NOT_FOUND\n"
        f'\tdetails = "order {n} is unknown"\n\tdebug_error_string = "…"\n>'
        for n in (1, 22)
    ],
    "grpc, in full, of a customer": [
        "AioRpcError: <AioRpcError of RPC that terminated with:\n\tstatus = StatusCode.NOT_FOUND\n"
        f'\tdetails = "customer {n} is unknown"\n\tdebug_error_string = "…"\n>'
        for n in (1, 22)
    ],
    "grpc, another": ["AioRpcError: StatusCode.PERMISSION_DENIED: no right to 'orders.write'"],
    "MySQL": [
        f"IntegrityError: (1062, \"Duplicate entry '{n}' for key 'orders.PRIMARY'\")"
        for n in ("12-34", "99")
    ],
    "boto": [
        (
            "ClientError: An error occurred (NoSuchKey) when calling the GetObject operation: The "
            "specified key does not exist."
        )
    ],
    "boto, denied": [
        "ClientError: An error occurred (AccessDenied) when calling the GetObject operation: "
        f"Access Denied (request {n})"
        for n in ("4442587FB7D0A2F9", "656c76696e6727732072657175657374")
    ],
    "a file": [
        f"FileNotFoundError: [Errno 2] No such file or directory: '/srv/export/{n}.csv'"
        for n in ("2026-11-29", "81ab")
    ],
    "a custom class with a number": ["Erp404: no such thing"],
    "another class with a number": ["Erp405: no such thing"],
    "no text": [""],
}
"""Of each kind some that one bug, or one trouble elsewhere, may have led to."""


def key(error: str, reason: str = "exhausted", kind: str = "order.updated", tb: str = "") -> str:
    return cause_of(reason, kind, error, tb).key


def test_the_errors_of_a_kind_are_one_group() -> None:
    assert len(KINDS) > 60
    for kind, errors in KINDS.items():
        lines = {cause_of("exhausted", "order.updated", error, "").error for error in errors}
        assert len(lines) == 1, kind


def test_no_two_kinds_are_one_group() -> None:
    seen: dict[str, str] = {}
    for kind, (error, *_) in KINDS.items():
        assert seen.setdefault(key(error), kind) == kind


def test_reason_type_and_place_tell_groups_apart() -> None:
    error = "KeyError: 'sku'"
    keys = {
        key(error, *told)
        for told in itertools.product(
            ("exhausted", "blocked"),
            ("order.updated", "order.created"),
            ("", frame("/app/shop/hooks.py", 1, "save"), frame("/app/shop/hooks.py", 1, "load")),
        )
    }
    assert len(keys) == 12


def frame(file: str, line: int, name: str) -> str:
    return f'Traceback (most recent call last):\n  File "{file}", line {line}, in {name}\n    x\n'


def place(*frames: tuple[str, int, str]) -> str:
    text = "".join(frame(*each) for each in frames)
    return cause_of("exhausted", "t", "KeyError: 'sku'", text).place


def test_the_place_is_the_innermost_of_the_authors_code_without_its_line() -> None:
    library = "/usr/lib/python3.11/site-packages/httpx/_client.py"
    own = "/app/releases/2026-11-29/shop/hooks.py"
    assert place((own, 3, "save"), (library, 9, "send")) == "shop/hooks.py in save"
    assert place((own, 77, "save"), (library, 1, "send")) == "shop/hooks.py in save"
    assert place((own, 3, "save"), (own, 9, "Order.total"), (library, 9, "send")) == (
        "shop/hooks.py in Order.total"
    )
    elsewhere = "/srv/b/shop/hooks.py"
    assert place((elsewhere, 3, "save")) == place((own, 3, "save"))
    for file in (library, "/usr/lib/python3.11/json/decoder.py", "<string>", "<frozen os>"):
        assert place((file, 3, "loads")) == ""


def in_a_group(key: str) -> BaseException:
    nothing: dict[str, int] = {}

    def fails() -> None:
        parts = [raised(lambda: nothing[key]), raised(lambda: int("x"))]
        raise BaseExceptionGroup("unhandled errors in a TaskGroup", parts)

    return raised(fails)


def test_of_a_group_of_errors_the_first_counts() -> None:
    one, same, other = in_a_group("sku"), in_a_group("sku"), in_a_group("total")
    causes = [
        cause_of("exhausted", "t", f"ExceptionGroup: {each}", traceback_of(each, plain))
        for each in (one, same, other)
    ]
    assert causes[0] == causes[1]
    assert causes[0].error == "KeyError: 'sku'"
    assert causes[0].key != causes[2].key
    assert (
        causes[0].place == "worker/test_grouping.py in in_a_group.<locals>.fails.<locals>.<lambda>"
    )


def test_what_was_harmed_by_hand_is_told_apart_by_its_reason_alone() -> None:
    lost = "its payload is gone"
    assert key(lost, "payload_lost", "") == key(lost, "payload_lost", "order.updated")


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("Erp: GET http://10.0.0.7:8080/a/b/17/c?x=1#y failed", "Erp: GET http://*/a/b/* failed"),
        ("https://ada:pw@erp.example:8443/", "https://erp.example:8443"),
        (
            "status=503, status_code: 404, HTTP/1.1 500",
            "status=503, status_code: 404, HTTP/1.1 500",
        ),
        ("code 200 rows, port 443, 404 lines", "code * rows, port * lines"),
        ("-3.5 of 1,234.50 at 12:30:45 from 10.0.0.1", "* of * at * from *"),
        ("mac 00:1b:44:11:3a:b7 v2 line12", "mac * line12"),
        ("can't, doesn't: 'It's late'", "can't, doesn't: 'It's late'"),
        ("said 'Card Was Declined'", "said '*'"),
        ("said 'card was declined'", "said 'card was declined'"),
        ("***", "*"),
        ("f(3) of 2, items (3), (1) 2 of %s 5 %d", "f(*) of *, items (*), (*) * of %s * %d"),
        ("x" * 5000, "x" * 200),
    ],
)
def test_what_differs_goes_and_what_tells_stays(line: str, left: str) -> None:
    assert normalized(line) == left


@given(st.text())
def test_any_text_has_a_group_and_its_line_is_its_own(text: str) -> None:
    cause = cause_of("rejected", text, text, text)
    assert len(cause.key) == 12
    assert len(cause.error) <= 200
    assert "\n" not in cause.error


@pytest.mark.parametrize(
    "text",
    [
        *("a" * 3000, "1-" * 1500, "'" * 3000, "a_" * 1500, "[" * 3000),
        *("sku_" + "a" * 32 + "XYz", "sku_aa" + "A" * 32 + "é"),
    ],
)
def test_no_text_takes_long(text: str) -> None:
    began = time.process_time()
    for _ in range(10):
        cause_of("rejected", "t", text, text * 3)
    assert time.process_time() - began < 0.5
    assert ANY == "*"
