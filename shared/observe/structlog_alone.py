"""structlog without rich, which it would load for tracebacks that we never let it draw.

That is a tenth of a second of every start. Whoever wants structlog's names takes them from here.
"""

import sys

_WAS_ABSENT = "rich" not in sys.modules
if _WAS_ABSENT:
    sys.modules["rich"] = None  # type: ignore[assignment]  # as where it isn't installed
try:
    import structlog
    from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger
finally:
    if _WAS_ABSENT:
        del sys.modules["rich"]

__all__ = ["EventDict", "FilteringBoundLogger", "Processor", "WrappedLogger", "structlog"]
