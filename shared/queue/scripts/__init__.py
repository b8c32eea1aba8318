"""The transitions of a job, one Lua script each, run atomically by Redis."""

from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from time import perf_counter
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from shared.observe import metrics
from shared.queue import keys
from shared.redis.wire import Wire

_SHEBANG = "#!lua\n"
_SHEBANG_ALLOW_OOM = "#!lua flags=allow-oom\n"


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, ready to be called by its digest."""

    name: str
    text: str
    digest: str

    async def __call__(self, redis: Redis | Wire, *arguments: bytes | str | float) -> Any:
        """Run it; sends the text only where Redis doesn't know the digest (any more)."""
        started = perf_counter()
        try:
            answer = await redis.execute_command("EVALSHA", self.digest, 0, *arguments)
        except NoScriptError:
            answer = await redis.execute_command("EVAL", self.text, 0, *arguments)
        metrics.ROUND_TRIP.labels(self.name).observe(perf_counter() - started)
        return answer


def load(name: str, *, allow_oom: bool = True) -> Script:
    """Read ``{name}.lua`` behind the shared prelude.

    Args:
        name: of the file beside this one, without its ending.
        allow_oom: whether it may run while Redis is full. Everything that drains may.
    """
    here = files(__package__)
    body = (here / "prelude.lua").read_text() + (here / f"{name}.lua").read_text()
    shebang = _SHEBANG_ALLOW_OOM if allow_oom else _SHEBANG
    text = shebang + keys.lua_table() + body
    # Redis names a script by its SHA-1; nothing is protected by it.
    digest = sha1(text.encode(), usedforsecurity=False).hexdigest()
    return Script(name, text, digest)
