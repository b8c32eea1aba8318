"""How often Python looks for garbage that refers to itself."""

import gc
from typing import Final

_YOUNG: Final = 10_000
"""Objects between two looks at the young ones. Python's own 700 are made by a few events, and what
an event leaves behind refers to itself nowhere: each look would find next to nothing."""


def tune() -> None:
    """Leave out what a program has loaded, and look at the rest less often.

    Call it once all is loaded and before the work begins. Garbage of cycles, as a handler may
    leave it, is found all the same, some thousand objects later.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG)
