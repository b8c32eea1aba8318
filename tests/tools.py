"""Programs that a test needs and this project doesn't carry."""

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

_INSTALLED_BY = {
    "kubectl": "requirements-deploy.lock",
    "hadolint": "requirements-deploy.lock",
    "kubernetes-validate": "requirements-deploy.lock",
    "promtool": "the Debian package prometheus",
    "amtool": "the Debian package prometheus-alertmanager",
    "prometheus": "the Debian package prometheus",
    "redis-server": "the Debian package redis-server",
    "redis-cli": "the Debian package redis-tools",
    "systemd-analyze": "the Debian package systemd",
    "openssl": "the Debian package openssl",
    "curl": "the Debian package curl",
    "haproxy": "the Debian package haproxy",
    "nginx": "the Debian package nginx-light",
    "java": "the Debian package default-jre-headless",
    "buildah": "the Debian package buildah",
    "mmdebstrap": "the Debian package mmdebstrap",
}


def tool(name: str) -> Path:
    """Where a program is; without it the test is skipped, and fails in CI, which installs them."""
    beside = Path(sys.executable).parent / name
    if beside.exists():
        return beside
    on_path = shutil.which(name)
    if on_path is None:
        missing(f"{name} isn't installed; it comes with {_INSTALLED_BY.get(name, 'the system')}")
    return Path(on_path)


def missing(what: str) -> NoReturn:
    """Skip the test, or fail it where nothing may be missing."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)
