"""The transitions of a job, one Lua script each, run atomically by Redis."""

from hashlib import sha1
from importlib.resources import files

from shared.queue import keys
from shared.redis.wire import Script

_SHEBANG = "#!lua\n"
_SHEBANG_ALLOW_OOM = "#!lua flags=allow-oom\n"


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
