"""Folders in memory, for servers whose files nobody looks at afterwards."""

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

# Where Linux has files in memory; a container may have given it 64 MiB.
_MEMORY: Final = Path("/dev/shm")  # noqa: S108  # only the parent of a folder of one's own
_MEMORY_BYTES: Final = 1024**3


def folder_in_memory(stack: ExitStack) -> Path:
    """A folder in memory where there is room, which leaves with the stack."""
    is_roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _MEMORY_BYTES
    folder = tempfile.TemporaryDirectory(
        prefix="sellfern-redis-", dir=_MEMORY if is_roomy else None, ignore_cleanup_errors=True
    )
    return Path(stack.enter_context(folder))
