"""What to do by hand in Sellfern's dashboard where the API Reference lists no operation for it."""

from typing import Final

from ingress.http.receive import ROUTE

_OPEN: Final = (
    "In Sellfern's dashboard, as the organization, open its webhook endpoints{which}, and "
)
_STEPS: Final = {
    "list": "compare them with the ones above.",
    "enable": "enable it.",
    "disable": "disable it.",
    "remove": "remove it. Then take its [[endpoint]] table out of {file}.",
    "test": "send a test delivery.",
    "deliveries": "look at its latest deliveries.",
    "register": "create one with the URL https://YOUR-HOST{route}{endpoint} and copy its secret; "
    "then add to {file}:\n"
    '  [[endpoint]]\n  id = "{endpoint}"\n  organization_id = "ORGANIZATION"\n'
    '  secrets = ["THE-SECRET"]',
    "rotate": "rotate it in these steps:\n"
    "  1. Create a second endpoint, disabled, for the same events, at the same URL with "
    "?rotation=2 (or the next number) behind it, and copy its secret.\n"
    "  2. Put that secret in front of the old one in {file}; the ingress reads it within a "
    "second.\n"
    "  3. Enable the second endpoint, and wait until deliveries to it are answered with 202.\n"
    "  4. Remove the first endpoint.\n"
    "  5. Give the old secret an end: "
    '{{ value = "THE-OLD-SECRET", until = 2026-12-01T00:00:00Z }}.',
}
_IMPORT: Final = (
    "If Sellfern's API Reference lists the operation by now, import its OpenAPI document, and "
    "this command works: python -m ingress reference import FILE"
)


def manual_step(command: str, endpoint_id: str | None, file: str) -> str:
    """How to do by hand what a command can't do, and how it comes to be able to.

    Args:
        command: such as ``rotate``.
        endpoint_id: which endpoint, if the command is for one.
        file: the endpoints file.
    """
    known = endpoint_id is not None and command != "register"
    which = f", choose the one whose URL ends in {ROUTE}{endpoint_id}" if known else ""
    step = _STEPS[command].format(endpoint=endpoint_id, route=ROUTE, file=file)
    return f"{_OPEN.format(which=which)}{step}\n{_IMPORT}"
