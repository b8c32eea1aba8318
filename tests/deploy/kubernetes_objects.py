"""The objects that kustomize makes of deploy/, in a copy with secrets of its own."""

import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import yaml

from tests.deploy.pinned import pin
from tests.tools import tool

DEPLOY: Final = Path(__file__).parents[2] / "deploy"


def built(folder: Path, overlay: str = "example") -> Path:
    """Build the example, or what stands on it, in a folder; the file of its objects."""
    copy = folder / "deploy"
    shutil.copytree(
        DEPLOY, copy, ignore=shutil.ignore_patterns("secrets", ".env", "pinned", "__pycache__")
    )
    ended = pin(copy / "pin-images.sh", copy)
    assert ended.returncode == 0, ended.stderr
    example = copy / "kubernetes" / "example"
    subprocess.run([tool("sh"), example / "example.sh"], check=True, capture_output=True)
    cluster = example.with_name("cluster")
    subprocess.run([tool("sh"), cluster / "cluster.sh"], check=True, capture_output=True)
    shop = copy / "kubernetes" / "handlers" / "secrets"
    shop.mkdir()
    (shop / "shop.env").write_text("ERP_TOKEN=a token of the ERP\n")
    ended = subprocess.run(
        [tool("kubectl"), "kustomize", example.with_name(overlay)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Warning" not in ended.stderr
    path = folder / "objects.yaml"
    path.write_text(ended.stdout)
    return path


class Objects:
    """Kubernetes objects by kind and name.

    Args:
        path: the file that they stand in.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[tuple[str, str], Any] = {
            (each["kind"], each["metadata"]["name"]): each
            for each in yaml.safe_load_all(path.read_text())
        }

    def one(self, kind: str, name: str) -> Any:
        """The object of that kind and name."""
        return self._found[kind, name]

    def names(self, kind: str) -> set[str]:
        """The names of all of a kind; those that kustomize made stand without their hash."""
        return {name for each, name in self._found if each == kind}

    def pods(self) -> dict[str, Any]:
        """The pod that each Deployment and StatefulSet makes."""
        kinds = ("Deployment", "StatefulSet")
        return {
            name: found["spec"]["template"]
            for (kind, name), found in self._found.items()
            if kind in kinds
        }

    def container(self, name: str) -> Any:
        """The only container of a Deployment's or StatefulSet's pod."""
        (container,) = self.pods()[name]["spec"]["containers"]
        return container
