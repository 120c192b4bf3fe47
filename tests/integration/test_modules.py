"""The console module, and the example module of docs/writing-a-module.md, beside a real core."""
import http.client
import pathlib

import pytest

from harness import BIN
from harness.gateway import Gateway
from harness.processes import wait_until

BINARIES = ("gatehouse", "gatehouse-supervisor", "gatehouse-core", "gatehouse-console", "gatehouse-hello")


def configuration(address="127.0.0.1", console=None):
    return {"version": 1,
            "store": {"backend": "memory"},
            "listeners": [{"name": "metrics", "address": address, "port": 0}, {"name": "hello", "port": 0}],
            "modules": [{"id": "console", "listeners": ["metrics"], "config": console or {}},
                        {"id": "hello", "listeners": ["hello"]}]}


@pytest.fixture(scope="module", autouse=True)
def built():
    absent = [name for name in BINARIES if not pathlib.Path(BIN / name).exists()]
    if absent:
        pytest.skip(f"not built: {', '.join(absent)}")


@pytest.fixture(scope="module")
def small_gateway(built):
    with Gateway(configuration()) as started:
        yield started


def ask(gateway, listener, path, method="GET", headers=None, address=None):
    """(status, headers, body text) of one request. address: of the listener, when the gateway may not know it now."""
    connection = http.client.HTTPConnection(*(address or gateway.listener(listener)), timeout=20)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read().decode()
    finally:
        connection.close()


def test_metrics_are_the_cores_prometheus_text(small_gateway):
    status, headers, text = ask(small_gateway, "metrics", "/metrics")
    assert status == 200
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'gatehouse_module_ready{module="console"} 1\n' in text
    assert "gatehouse_catalog_records 0\n" in text


def test_healthz_says_ok(small_gateway):
    assert ask(small_gateway, "metrics", "/healthz")[::2] == (200, '{"status":"ok"}\n')


def test_a_head_request_gets_no_body(small_gateway):
    status, headers, text = ask(small_gateway, "metrics", "/healthz", method="HEAD")
    assert (status, headers["Content-Length"], text) == (200, "16", "")


@pytest.mark.parametrize("host", ["gateway.example.com", "127.0.0.1.example.com", "10.0.0.1:9464"])
def test_a_name_of_elsewhere_is_refused(small_gateway, host):
    status, _headers, text = ask(small_gateway, "metrics", "/metrics", headers={"Host": host})
    assert status == 403
    assert "auth.permission.denied" in text


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/", 404), ("GET", "/metrics/", 404), ("POST", "/metrics", 405),
                                                        ("DELETE", "/healthz", 405)])
def test_nothing_else_is_served(small_gateway, method, path, status):
    assert ask(small_gateway, "metrics", path, method=method)[0] == status


def test_an_address_that_others_reach_is_refused(built):
    with Gateway(configuration(address="0.0.0.0"), wait=False) as started:
        wait_until(lambda: "not on loopback" in started.log(), "the console to refuse")
        console = wait_until(lambda: started.processes().get("console"), "its status")
        assert console["state"] != "ready"


def test_an_operator_may_allow_other_addresses(built):
    with Gateway(configuration(address="0.0.0.0", console={"allowNonLoopback": True})) as started:
        port = started.listener("metrics")[1]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/metrics", headers={"Host": "gateway.example.com"})
        assert connection.getresponse().status == 200
        connection.close()


def test_a_new_core_finds_the_console_as_it_was(built):
    with Gateway(configuration()) as started:
        console, address = started.processes()["console"], started.listener("metrics")
        core = started.kill("core")
        wait_until(lambda: started.processes().get("core", {}).get("pid") not in (None, core["pid"]), "another core")
        wait_until(lambda: ask(started, "metrics", "/healthz", address=address)[0] == 200, "the console to be healthy again")
        now = wait_until(lambda: started.processes().get("console"), "its status")
        assert (now["pid"], now["generation"]) == (console["pid"], console["generation"])


def test_the_example_greets_whom_the_core_knows(small_gateway):
    small_gateway.apply("kind: User\nmetadata: {name: admin@example.com}\nspec: {isAdmin: true}\n")
    token = small_gateway.token("admin@example.com")
    status, _headers, text = ask(small_gateway, "hello", "/hello", headers={"Authorization": f"Bearer {token}"})
    assert (status, text) == (200, "Hello, admin@example.com!\n")


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic YTpi"}])
def test_the_example_refuses_whom_the_core_refuses(small_gateway, headers):
    assert ask(small_gateway, "hello", "/hello", headers=headers)[0] == 401
