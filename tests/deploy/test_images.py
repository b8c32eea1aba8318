"""The images of others: each is used by a digest that somebody has looked up, or not at all.

No registry is asked here: what pin-images.sh is told is a stand-in's word.
"""

import re
from pathlib import Path
from typing import Final

import yaml

from tests.deploy.kubernetes_objects import DEPLOY, Objects, built
from tests.deploy.pinned import digest, pin

SCRIPT: Final = DEPLOY / "pin-images.sh"
IMAGES: Final = dict(map(str.split, (DEPLOY / "images").read_text().splitlines()[1:]))
PINS: Final = {name: f"{tag.split(':')[0]}@{digest(tag)}" for name, tag in IMAGES.items()}


def test_no_file_names_an_image_of_anothers_but_the_list() -> None:
    named = set()
    for path in [DEPLOY / "compose.yaml", *DEPLOY.glob("**/*.yaml"), DEPLOY / "Dockerfile"]:
        named |= set(re.findall(r"^\s*(?:image:|FROM) (\S+)", path.read_text(), re.MULTILINE))
    variables = {f'"${{{name}:?run' for name in IMAGES if name != "PYTHON_IMAGE"}
    ours = {"sellfern-webhooks", "shop-handlers"}
    assert named == ours | {"redis:unpinned", "${PYTHON_IMAGE}"} | variables


def test_the_dockerfile_has_no_image_unless_it_is_told_one() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert re.findall(r"^ARG (.+)$", text, re.MULTILINE) == ["PYTHON_IMAGE"]
    assert not re.search(r"^#\s*syntax\s*=", text, re.MULTILINE)  # it would be one more


def test_pinning_writes_every_digest_down_and_keeps_what_else_is_there(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A_PASSWORD=x\nREDIS_IMAGE=redis:7@sha256:old\n")
    (tmp_path / ".env").chmod(0o600)
    ended = pin(SCRIPT, tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    pins = [f"{name}={pinned}" for name, pinned in PINS.items()]
    assert (tmp_path / ".env").read_text().splitlines() == ["A_PASSWORD=x", *pins]
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    component = yaml.safe_load((tmp_path / "kubernetes/pinned/kustomization.yaml").read_text())
    written = [f"{each['name']}@{each['digest']}" for each in component["images"]]
    assert written == list(PINS.values())


def test_an_image_that_no_registry_knows_leaves_everything_as_it_was(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A_PASSWORD=x\n")
    ended = pin(SCRIPT, tmp_path, unknown=IMAGES["HAPROXY_IMAGE"])
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: haproxy:3.0-alpine: expected its digest")
    assert (tmp_path / ".env").read_text() == "A_PASSWORD=x\n"
    assert not (tmp_path / "kubernetes").exists()


def test_kubernetes_runs_the_redis_of_that_digest(tmp_path: Path) -> None:
    image = Objects(built(tmp_path)).container("sellfern-redis")["image"]
    assert image == PINS["REDIS_IMAGE"]
