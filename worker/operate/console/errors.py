"""What a page shows instead of an error: never a traceback, and an outage by its name."""

from http import HTTPStatus
from typing import Final

from aiohttp import web

from shared.redis.connection import REDIS_ERRORS
from worker.operate.console.context import console_of
from worker.operate.console.guard import Handler, Refused
from worker.operate.console.views import message

_TEXTS: Final = {
    HTTPStatus.NOT_FOUND: ("Nothing here", "There is no such page, or what it showed is gone."),
    HTTPStatus.METHOD_NOT_ALLOWED: ("Not like this", "This page can only be looked at."),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ("Too large", "The form is larger than forms are here."),
}


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Show a page for whatever went wrong."""
    try:
        return await handler(request)
    except Refused as exc:
        console_of(request).log.warning(
            "console_refused", path=request.path, address=request.remote, why=exc.why
        )
        return message(request, HTTPStatus.FORBIDDEN, "Refused", exc.why)
    except web.HTTPRedirection:
        raise
    except web.HTTPException as exc:
        status = HTTPStatus(exc.status)
        title, text = _TEXTS.get(status, (status.phrase, exc.text or status.description))
        return message(request, status, title, text)
    except REDIS_ERRORS as exc:
        console_of(request).sampler.lost(exc)
        return message(
            request,
            HTTPStatus.SERVICE_UNAVAILABLE,
            "Redis does not answer",
            "What you asked for can't be read or done just now. Nothing is lost by waiting: "
            "events that were accepted stay where they are. Whether an action that you have just "
            "confirmed was done is unknown; look when Redis is back.",
        )
    except Exception:  # noqa: BLE001  # a page that fails must not end the console
        console_of(request).log.exception("console_page_failed", path=request.path)
        return message(
            request,
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "This page failed",
            "The console's log says why.",
        )
