"""The quick start's REST upstream is a real service: right answers, strict errors, and a document that tells the truth."""
import json
import urllib.parse

import jsonschema
import pytest

from harness import QUICKSTART, http1
from harness.processes import ALMANAC_KEY

DOCUMENT = json.loads((QUICKSTART / "worldclock.openapi.json").read_text())


def get(service, path, **options):
    return http1.request(service.url + path, **options)


@pytest.mark.parametrize("zone, form, expected", [
    ("Europe/Berlin", "iso", "2026-11-21T10:30:00+01:00"),
    ("Asia/Kathmandu", "iso", "2026-11-21T15:15:00+05:45"),
    ("America/St_Johns", "iso", "2026-11-21T06:00:00-03:30"),
    ("UTC", "unix", "1795253400"),
    ("Europe/Berlin", "text", "Saturday, 21 November 2026, 10:30:00 CET"),
])
def test_time_of_an_instant(worldclock, zone, form, expected):
    reply = get(worldclock, f"/v1/time/{urllib.parse.quote(zone, safe='')}?format={form}&at=2026-11-21T09:30:00Z")
    assert reply.status == 200
    assert reply.json()["time"] == expected


@pytest.mark.parametrize("value, unit, to, expected", [
    ("100", "C", "F", 212), ("-40", "F", "C", -40), ("0", "K", "C", -273.15), ("1", "mi", "km", 1.609344), ("1", "lb", "g", 453.59237),
    ("36", "km/h", "m/s", 10), ("1", "GiB", "MB", 1073.741824), ("2", "d", "h", 48), ("1e3", "mL", "L", 1),
])
def test_conversion(worldclock, value, unit, to, expected):
    query = urllib.parse.urlencode({"value": value, "from": unit, "to": to})
    assert get(worldclock, f"/v1/convert?{query}").json()["result"] == pytest.approx(expected, rel=1e-12)


def test_meeting_across_a_date_line(worldclock):
    body = {"zones": ["Pacific/Auckland", "America/New_York"], "zone": "Europe/Berlin", "time": "2026-11-20T15:30", "duration_minutes": 30}
    plan = get(worldclock, "/v1/meeting", method="POST", body=body).json()
    assert (plan["start"], plan["end"]) == ("2026-11-20T14:30:00Z", "2026-11-20T15:00:00Z")
    assert [t["local"] for t in plan["times"]] == ["2026-11-21T03:30:00+13:00", "2026-11-20T09:30:00-05:00"]
    assert [t["working_hours"] for t in plan["times"]] == [False, True]


@pytest.mark.parametrize("path, status, code", [
    ("/v1/time/Mars%2FOlympus", 404, "zone_unknown"), ("/v1/time/..%2F..%2Fetc%2Fpasswd", 404, "zone_unknown"),
    ("/v1/time/%FF", 400, "encoding_invalid"), ("/v1/time/UTC?format=roman", 422, "format_invalid"),
    ("/v1/time/UTC?at=yesterday", 422, "instant_invalid"), ("/v1/time/UTC?at=2026-11-21T09:30:00", 422, "instant_invalid"),
    ("/v1/time/Asia%2FTokyo?at=9999-12-31T23:59:59Z", 422, "instant_invalid"),
    ("/v1/time/UTC?x=1", 422, "parameter_unknown"), ("/v1/time/UTC?format=iso&format=unix", 422, "parameter_repeated"),
    ("/v1/convert?value=1&from=m", 422, "parameter_missing"), ("/v1/convert?value=one&from=m&to=km", 422, "value_invalid"),
    ("/v1/convert?value=nan&from=m&to=km", 422, "value_invalid"), ("/v1/convert?value=1e999&from=m&to=km", 422, "value_invalid"),
    ("/v1/convert?value=-1&from=K&to=C", 422, "value_invalid"), ("/v1/convert?value=1&from=m&to=kg", 422, "units_differ"),
    ("/v1/convert?value=1&from=m&to=parsec", 422, "unit_unknown"), ("/nowhere", 404, "path_unknown"),
    ("/v1/almanac?date=2026-11-21", 401, "key_invalid"),
])
def test_errors_are_problem_documents(worldclock, path, status, code):
    reply = get(worldclock, path)
    assert (reply.status, reply.json()["code"]) == (status, code)
    assert reply.header("content-type") == "application/problem+json"
    jsonschema.validate(reply.json(), DOCUMENT["components"]["schemas"]["Problem"])


@pytest.mark.parametrize("body, code", [
    ({"zones": [], "zone": "UTC", "time": "2026-11-20T15:30"}, "zones_invalid"),
    ({"zones": ["UTC"] * 51, "zone": "UTC", "time": "2026-11-20T15:30"}, "zones_invalid"),
    ({"zones": ["UTC"], "zone": "UTC"}, "time_invalid"),
    ({"zones": ["UTC"], "zone": "UTC", "time": "2026-11-20T15:30Z"}, "time_invalid"),
    ({"zones": ["UTC"], "zone": "Europe/Berlin", "time": "2026-03-29T02:30"}, "time_skipped"),
    ({"zones": ["UTC"], "zone": "UTC", "time": "2026-11-20T15:30", "duration_minutes": True}, "duration_invalid"),
    ({"zones": ["UTC"], "zone": "UTC", "time": "9999-12-31T23:30"}, "time_invalid"),
    ({"zones": ["UTC"], "zone": 7, "time": "2026-11-20T15:30"}, "zone_invalid"),
    ([], "body_invalid"),
])
def test_meeting_refuses(worldclock, body, code):
    reply = get(worldclock, "/v1/meeting", method="POST", body=body)
    assert (reply.status, reply.json()["code"]) == (422, code)


@pytest.mark.parametrize("headers, body, status", [
    ({"Content-Type": "text/plain"}, b"{}", 415), ({"Content-Type": "application/json"}, b"{", 400),
    ({"Content-Type": "application/json"}, b"[" * 100000, 400),
    ({"Content-Type": "application/json", "Content-Length": "2000000"}, b"", 413),
    ({"Content-Type": "application/json", "Content-Length": "-1"}, b"", 400),
    ({"Content-Type": "application/json", "Transfer-Encoding": "chunked", "Content-Length": None}, b"0\r\n\r\n", 411),
])
def test_bad_bodies(worldclock, headers, body, status):
    assert get(worldclock, "/v1/meeting", method="POST", headers=headers, body=body).status == status


def test_a_method_that_a_path_does_not_take(worldclock):
    reply = get(worldclock, "/v1/convert", method="DELETE")
    assert (reply.status, reply.header("allow")) == (405, "GET")


def test_almanac_wants_its_key(worldclock):
    path = "/v1/almanac?date=2024-02-29"
    assert get(worldclock, path, headers={"Authorization": "Bearer wrong"}).status == 401
    reply = get(worldclock, path, headers={"Authorization": f"Bearer {ALMANAC_KEY}"})
    assert reply.json() == {"date": "2024-02-29", "weekday": "Thursday", "day_of_year": 60, "iso_week": "2024-W09-4",
                            "leap_year": True, "days_in_month": 29}


def test_connection_is_kept_through_errors(worldclock):
    with http1.Connection(worldclock.url) as connection:
        for path, status in (("/nowhere", 404), ("/healthz", 200), ("/v1/time/Nope", 404), ("/healthz", 200)):
            connection.send("GET", path)
            assert connection.read().status == status


def test_document_is_served_and_true(worldclock):
    """Every operation of the document answers, and with what its schema says."""
    served = get(worldclock, "/openapi.json").json()
    assert served == DOCUMENT
    calls = {
        "world_time": ("GET", "/v1/time/Europe%2FBerlin", None), "convert_units": ("GET", "/v1/convert?value=1&from=m&to=ft", None),
        "plan_meeting": ("POST", "/v1/meeting", {"zones": ["UTC"], "zone": "Asia/Tokyo", "time": "2026-11-20T15:30"}),
        "almanac": ("GET", "/v1/almanac?date=2026-11-21", None), "health": ("GET", "/healthz", None),
        "openapi": ("GET", "/openapi.json", None),
    }
    operations = {op["operationId"]: op for path in served["paths"].values() for op in path.values()}
    assert operations.keys() == calls.keys()
    for name, (method, path, body) in calls.items():
        reply = get(worldclock, path, method=method, body=body, headers={"Authorization": f"Bearer {ALMANAC_KEY}"})
        schema = operations[name]["responses"]["200"]["content"]["application/json"]["schema"]
        assert reply.status == 200, name
        jsonschema.Draft202012Validator({**schema, "components": served["components"]}).validate(reply.json())
