"""Every way in which a handler can end, or not end, as real processes.

Each misdeed in `misdeeds` is a handler's slip, or worse, with what has to become of it beside it.
The tests do it beside fifty events of another organization, and hold for each:

1. One counted outcome an attempt with a true reason: in the log, the metrics and the dead letter.
2. The slot is free again, and the other organization's events are handled exactly once.
3. SIGTERM ends the worker within its bound, with the code that the README names.

``HOSTILE_TURNS=20 python -m pytest tests/acceptance/hostile`` does all of it twenty times;
``-k NAME`` does one misdeed.
"""
