"""The objects that kustomize makes of deploy/, in a copy with secrets of its own."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from tests.deploy.pinned import pin
from tests.tools import tool

DEPLOY: Final = Path(__file__).parents[2] / "deploy"

COMPONENTS: Final = "with-components"
"""What somebody writes who takes all of them, with Sentinels."""


def built(folder: Path, overlay: str = "example") -> Path:
    """Build the example, or what stands on it, in a folder; the file of its objects.

    Args:
        folder: where to; every secret in it is made.
        overlay: `COMPONENTS`, or the folder of one.
    """
    copy = copied(folder)
    example = copy / "kubernetes" / "example"
    subprocess.run([tool("sh"), example / "example.sh"], check=True, capture_output=True)
    for script in ("cluster/cluster.sh", "sentinel/sentinel.sh", "components/monitoring/rules.sh"):
        path = example.parent / script
        subprocess.run([tool("sh"), path], check=True, capture_output=True)
    shop = copy / "kubernetes" / "handlers" / "secrets"
    shop.mkdir()
    (shop / "shop.env").write_text("ERP_TOKEN=a token of the ERP\n")
    if overlay == COMPONENTS:
        _write_with_components(example.with_name(overlay))
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


def copied(folder: Path) -> Path:
    """A copy of deploy/ in a folder, with the digests of images."""
    copy = folder / "deploy"
    shutil.copytree(
        DEPLOY, copy, ignore=shutil.ignore_patterns("secrets", ".env", "pinned", "__pycache__")
    )
    ended = pin(copy / "pin-images.sh", copy)
    assert ended.returncode == 0, ended.stderr
    return copy


def _write_with_components(folder: Path) -> None:
    folder.mkdir()
    names = sorted(each.name for each in folder.with_name("components").iterdir())
    text = yaml.safe_dump(
        {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": "sellfern",
            "resources": ["../sentinel"],
            "components": [f"../components/{name}" for name in names],
        }
    )
    (folder / "kustomization.yaml").write_text(text)


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

    def __iter__(self) -> Iterator[Any]:
        return iter(self._found.values())

    def kinds(self) -> set[str]:
        """Which there are."""
        return {kind for kind, _ in self._found}

    def replicas(self, name: str) -> int:
        """How many pods a StatefulSet has; of a Deployment 0, where an autoscaler says so."""
        kind = "Deployment" if ("Deployment", name) in self._found else "StatefulSet"
        return int(self.one(kind, name)["spec"].get("replicas", 0))

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
