"""Builds images with buildah, in a store of its own, on a base that no registry is asked for.

What a builder has to know of this machine to reach the package index is mounted while it builds,
and is in no image.
"""

import json
import os
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any, Final

from tests.tools import missing, tool

_PACKAGES: Final = "python3-venv,coreutils,findutils,dash,base-files"
"""What the base has of Debian: Python, and what an image of Python's has at the least."""

_SUITE: Final = "bookworm"

_ANY: Final = {"default": [{"type": "insecureAcceptAnything"}]}
"""What may be used: only what was built here can be found."""

_TO_REACH_THE_INDEX: Final = {
    *("index-url", "extra-index-url", "cert", "client-cert", "proxy", "trusted-host"),
    *("timeout", "default-timeout", "retries"),
}
"""Settings of pip that are about the way to its index, and not about what is taken from there."""

_FILES: Final = {"cert", "client-cert"}
_UNITS: Final = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
"""What buildah counts in."""

_LONGEST: Final = 300.0
"""Seconds that a step may take on a busy machine."""


class Builder:
    """Images, and containers of them that are there to be run.

    Args:
        folder: an empty one, for all that it keeps; to be removed after `close`.
    """

    def __init__(self, folder: Path) -> None:
        if os.geteuid() != 0:
            missing("to build an image without an image store of the system's takes root")
        self._buildah = tool("buildah")
        self._folder = folder
        self._policy = folder / "policy.json"
        self._policy.write_text(json.dumps(_ANY))
        self._mounted = _way_to_the_index(folder / "pip.conf")
        # Overlay on overlay, as in many a container, the kernel refuses; copies it doesn't.
        self._driver = next(
            each for each in ("overlay", "vfs") if self._run(each, "info").returncode == 0
        )

    def close(self) -> None:
        """Leave nothing in the folder that keeps it from being removed."""
        for words in (("umount", "--all"), ("rm", "--all"), ("rmi", "--all", "--force")):
            self._run(self._driver, *words)
        for mount in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            if (where := mount.split()[4]).startswith(f"{self._folder}/"):
                subprocess.run([tool("umount"), where], check=False)

    def make_base(self, name: str) -> None:
        """Make an image of nothing but Debian's Python.

        Its packages are unpacked and not set up: that takes seconds, where debootstrap takes two
        minutes, and nothing that is missing then is anything that the programs use.
        """
        root = self._folder / "base"
        subprocess.run(
            [
                *(tool("mmdebstrap"), "--quiet", "--mode=root", "--variant=extract"),
                *(f"--include={_PACKAGES}", '--aptopt=APT::Install-Recommends "false"'),
                *(_SUITE, root),  # from Debian's own mirror
            ],
            check=True,
            timeout=_LONGEST,
        )
        (root / "usr/bin/python").symlink_to("python3")
        container = self._do("from", "scratch")
        self._do("add", "--quiet", container, str(root), "/")
        self._do("commit", "--quiet", "--signature-policy", str(self._policy), container, name)
        self._do("rm", container)
        shutil.rmtree(root)

    def build(self, context: Path, name: str, *, file: Path, **arguments: str) -> None:
        """Build an image as `docker build` would, from what is here alone.

        Args:
            context: the folder.
            name: of the image.
            file: the Dockerfile.
            arguments: of the build.
        """
        # Docker takes the first of these, buildah has to be told.
        ignored = file.with_name(f"{file.name}.dockerignore")
        if not ignored.exists():
            ignored = context / ".dockerignore"
        self._do(
            *("build", "--isolation", "chroot", "--pull-never", "--network", "host"),
            *("--signature-policy", str(self._policy), "--format", "docker"),
            *(word for path in self._mounted for word in ("--volume", f"{path}:ro")),
            *(word for item in arguments.items() for word in ("--build-arg", "=".join(item))),
            *("--ignorefile", str(ignored), "--file", str(file), "--tag", name, str(context)),
        )

    def settings(self, image: str) -> dict[str, Any]:
        """What an image says of how it is to be run, as Docker has it."""
        told = json.loads(self._do("inspect", "--type", "image", image))
        found: dict[str, Any] = told["Docker"]["config"]
        return found

    def size(self, image: str) -> int:
        """Bytes of an image with all that is under it."""
        (told,) = json.loads(self._do("images", "--json", image))
        number, unit = told["size"].split()
        return round(float(number) * _UNITS[unit])

    def unpack(self, image: str) -> Path:
        """Make a container of an image, and give the folder that is its root."""
        words = ("--pull-never", "--signature-policy", str(self._policy))
        container = self._do("from", *words, image)
        return Path(self._do("mount", container))

    def _do(self, *words: str) -> str:
        ended = self._run(self._driver, *words)
        assert ended.returncode == 0, f"buildah {' '.join(words)}\n{ended.stdout}{ended.stderr}"
        return ended.stdout.strip()

    def _run(self, driver: str, *words: str) -> subprocess.CompletedProcess[str]:
        store = ("--root", str(self._folder / "images"), "--runroot", str(self._folder / "run"))
        return subprocess.run(
            [self._buildah, *store, "--storage-driver", driver, *words],
            env={**os.environ, "TMPDIR": str(self._folder)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LONGEST,
            check=False,
        )


def _way_to_the_index(path: Path) -> list[str]:
    """Write the settings of this machine's pip that lead to its index; what is to be mounted."""
    words = ("-m", "pip", "config", "list")
    told = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
    settings = ConfigParser(interpolation=None)
    settings["global"] = {}
    # It tells those of the environment first, and they count.
    for line in told.stdout.splitlines():
        name, _, value = line.partition("=")
        name, value = name.rpartition(".")[2], value.strip("'")
        reaches = " ".join(each for each in value.split() if not each.startswith("file:"))
        if name in _TO_REACH_THE_INDEX and reaches:
            settings["global"].setdefault(name, reaches)
    with path.open("w") as file:
        settings.write(file)
    files = {settings["global"][name] for name in _FILES if name in settings["global"]}
    return [f"{path}:/etc/pip.conf", *(f"{each}:{each}" for each in sorted(files))]
