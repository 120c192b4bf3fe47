#!/usr/bin/python3
"""World clock and unit conversion: a small real HTTP/JSON service, the quick start's REST upstream.

GET /v1/time/{zone}   the time in a zone          GET /v1/convert   one value in another unit
POST /v1/meeting      one moment in many zones    GET /v1/almanac   facts of a day (wants a bearer key)
GET /healthz          alive                       GET /openapi.json worldclock.openapi.json, which stands beside this file

Answers depend on the request alone, but for the current time when none is given. Errors are application/problem+json. The key of
the almanac comes from WORLDCLOCK_KEY; without one the almanac is closed. Options and life cycle: service.py.
"""
import calendar
import datetime
import hmac
import math
import os
import pathlib
import re
import sys
import urllib.parse
import zoneinfo

import service
from service import Problem

OPENAPI = pathlib.Path(__file__).with_name("worldclock.openapi.json")
FORMATS = ("iso", "unix", "text")
ZONES_LIMIT = 50
ZONES = frozenset(zoneinfo.available_timezones())
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)

# unit: (quantity, factor to the quantity's base unit, offset in the base unit)
UNITS = {
    "mm": ("length", 0.001, 0), "cm": ("length", 0.01, 0), "m": ("length", 1, 0), "km": ("length", 1000, 0),
    "in": ("length", 0.0254, 0), "ft": ("length", 0.3048, 0), "yd": ("length", 0.9144, 0), "mi": ("length", 1609.344, 0),
    "nmi": ("length", 1852, 0),
    "mg": ("mass", 1e-6, 0), "g": ("mass", 0.001, 0), "kg": ("mass", 1, 0), "t": ("mass", 1000, 0),
    "oz": ("mass", 0.028349523125, 0), "lb": ("mass", 0.45359237, 0), "st": ("mass", 6.35029318, 0),
    "K": ("temperature", 1, 0), "C": ("temperature", 1, 273.15), "F": ("temperature", 5 / 9, 459.67 * 5 / 9),
    "m/s": ("speed", 1, 0), "km/h": ("speed", 1 / 3.6, 0), "mph": ("speed", 0.44704, 0), "kn": ("speed", 1852 / 3600, 0),
    "bit": ("data", 1, 0), "B": ("data", 8, 0), "kB": ("data", 8e3, 0), "MB": ("data", 8e6, 0), "GB": ("data", 8e9, 0),
    "TB": ("data", 8e12, 0), "KiB": ("data", 8 * 2**10, 0), "MiB": ("data", 8 * 2**20, 0), "GiB": ("data", 8 * 2**30, 0),
    "TiB": ("data", 8 * 2**40, 0),
    "s": ("time", 1, 0), "min": ("time", 60, 0), "h": ("time", 3600, 0), "d": ("time", 86400, 0), "wk": ("time", 604800, 0),
    "mL": ("volume", 1e-3, 0), "L": ("volume", 1, 0), "m3": ("volume", 1000, 0), "gal": ("volume", 3.785411784, 0),
    "pt": ("volume", 0.473176473, 0), "cup": ("volume", 0.2365882365, 0),
}


def find_zone(name):
    if not isinstance(name, str) or not name or len(name) > 64:
        raise Problem(422, "zone_invalid", "A zone is an IANA name such as Europe/Berlin.")
    if name not in ZONES:
        raise Problem(404, "zone_unknown", f"There is no time zone named {name!r}.", zone=name)
    return zoneinfo.ZoneInfo(name)


def parse_instant(text):
    """An RFC 3339 instant with an offset."""
    try:
        instant = datetime.datetime.fromisoformat(text)
        if instant.tzinfo is None:
            raise ValueError
        return instant.astimezone(datetime.timezone.utc)
    except (ValueError, OverflowError):
        raise Problem(422, "instant_invalid", "An instant looks like 2026-11-21T09:30:00Z.") from None


def offset_text(moment):
    minutes = int(moment.utcoffset().total_seconds()) // 60
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def in_zone(instant, name):
    """One instant as a person in that zone sees it."""
    try:
        local = instant.astimezone(find_zone(name))
    except OverflowError:
        raise Problem(422, "instant_invalid", "The moment is outside the years 1 to 9999.") from None
    return {"zone": name, "local": local.isoformat(timespec="seconds"), "utc_offset": offset_text(local),
            "abbreviation": local.tzname(), "weekday": local.strftime("%A"), "dst": bool(local.dst())}


def get_time(zone, query):
    allow(query, {"format", "at"})
    form = query.get("format", "iso")
    if form not in FORMATS:
        raise Problem(422, "format_invalid", f"format is one of {', '.join(FORMATS)}.")
    instant = parse_instant(query["at"]) if "at" in query else datetime.datetime.now(datetime.timezone.utc)
    shown = in_zone(instant, zone)
    local = instant.astimezone(find_zone(zone))
    shown["unix"] = int(instant.timestamp())
    shown["time"] = {"iso": shown["local"], "unix": str(shown["unix"]),
                     "text": local.strftime("%A, %d %B %Y, %H:%M:%S %Z")}[form]
    return shown


def get_convert(query):
    allow(query, {"value", "from", "to"}, required=("value", "from", "to"))
    if not NUMBER.fullmatch(query["value"]):
        raise Problem(422, "value_invalid", "value is not a number.")
    value = float(query["value"])
    if not math.isfinite(value):
        raise Problem(422, "value_invalid", "value has to be finite.")
    for name in (query["from"], query["to"]):
        if name not in UNITS:
            raise Problem(422, "unit_unknown", f"There is no unit named {name!r}.", units=sorted(UNITS))
    (quantity, factor, offset), (other, to_factor, to_offset) = UNITS[query["from"]], UNITS[query["to"]]
    if quantity != other:
        raise Problem(422, "units_differ", f"{query['from']} is a {quantity} and {query['to']} is a {other}.")
    base = value * factor + offset
    if quantity == "temperature" and base < -1e-9:
        raise Problem(422, "value_invalid", "That is below absolute zero.")
    result = (base - to_offset) / to_factor
    if not math.isfinite(result):
        raise Problem(422, "value_invalid", "The result is too large.")
    return {"value": value, "from": query["from"], "to": query["to"], "quantity": quantity,
            "result": float(f"{result:.12g}")}


def post_meeting(body):
    if not isinstance(body, dict) or set(body) - {"zones", "zone", "time", "duration_minutes"}:
        raise Problem(422, "body_invalid", "The body is an object with zones, zone, time and maybe duration_minutes.")
    zones, minutes = body.get("zones"), body.get("duration_minutes", 60)
    if not isinstance(zones, list) or not 1 <= len(zones) <= ZONES_LIMIT:
        raise Problem(422, "zones_invalid", f"zones is a list of 1 to {ZONES_LIMIT} zone names.")
    if isinstance(minutes, bool) or not isinstance(minutes, int) or not 1 <= minutes <= 1440:
        raise Problem(422, "duration_invalid", "duration_minutes is a whole number from 1 to 1440.")
    host = find_zone(body.get("zone"))
    try:
        local = datetime.datetime.fromisoformat(body["time"])
        if local.tzinfo is not None:
            raise ValueError
        start = local.replace(tzinfo=host).astimezone(datetime.timezone.utc)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise Problem(422, "time_invalid", "time is a local time without offset, such as 2026-11-21T09:30.") from None
    if start.astimezone(host).replace(tzinfo=None) != local:
        raise Problem(422, "time_skipped", f"{body['time']} does not exist in {body['zone']}: clocks jump over it.")
    try:
        end = start + datetime.timedelta(minutes=minutes)
    except OverflowError:
        raise Problem(422, "time_invalid", "The meeting ends after the year 9999.") from None
    times = []
    for name in zones:
        shown = in_zone(start, name)
        first, last = start.astimezone(find_zone(name)), end.astimezone(find_zone(name))
        shown["working_hours"] = bool(first.weekday() < 5 and first.hour >= 9 and last.date() == first.date() and
                                      last.hour * 60 + last.minute <= 17 * 60)
        times.append(shown)
    return {"start": start.isoformat().replace("+00:00", "Z"), "end": end.isoformat().replace("+00:00", "Z"), "times": times,
            "everyone_at_work": all(shown["working_hours"] for shown in times)}


def get_almanac(query):
    allow(query, {"date"}, required=("date",))
    try:
        day = datetime.date.fromisoformat(query["date"])
    except ValueError:
        raise Problem(422, "date_invalid", "date looks like 2026-11-21.") from None
    year, week, weekday = day.isocalendar()
    return {"date": day.isoformat(), "weekday": day.strftime("%A"), "day_of_year": day.timetuple().tm_yday,
            "iso_week": f"{year:04}-W{week:02}-{weekday}", "leap_year": calendar.isleap(day.year),
            "days_in_month": calendar.monthrange(day.year, day.month)[1]}


def allow(query, names, required=()):
    for name in query:
        if name not in names:
            raise Problem(422, "parameter_unknown", f"There is no parameter named {name!r}.")
    for name in required:
        if name not in query:
            raise Problem(422, "parameter_missing", f"The parameter {name!r} is missing.")


class Handler(service.Handler):
    server_version = "worldclock/1"
    key = ""

    def answer(self, method):
        path, _, query_text = self.path.partition("?")
        routes = {"/healthz": ("GET", self.healthz), "/openapi.json": ("GET", self.openapi), "/v1/convert": ("GET", self.convert),
                  "/v1/meeting": ("POST", self.meeting), "/v1/almanac": ("GET", self.almanac)}
        allowed, route = routes.get(path, (None, None))
        zone = path.removeprefix("/v1/time/")
        if path.startswith("/v1/time/") and zone and "/" not in zone:
            allowed, route = "GET", lambda query: self.send_json(200, get_time(self.decode(zone), query))
        if route is None:
            raise Problem(404, "path_unknown", "There is nothing at this path; see /openapi.json.")
        if method != allowed and (method, allowed) != ("HEAD", "GET"):
            problem = Problem(405, "method_not_allowed", f"This path takes {allowed}.")
            problem.headers = {"Allow": allowed}
            raise problem
        route(self.parse_query(query_text))

    @staticmethod
    def decode(text):
        try:
            return urllib.parse.unquote(text, errors="strict")
        except UnicodeDecodeError:
            raise Problem(400, "encoding_invalid", "The URL is not percent-encoded UTF-8.") from None

    @staticmethod
    def parse_query(text):
        try:
            pairs = urllib.parse.parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), errors="strict",
                                           max_num_fields=32)
        except ValueError:
            raise Problem(400, "query_malformed", "The query string is malformed.") from None
        query = dict(pairs)
        if len(query) != len(pairs):
            raise Problem(422, "parameter_repeated", "A parameter is given more than once.")
        return query

    def healthz(self, query):
        allow(query, ())
        self.send_json(200, {"status": "ok"})

    def openapi(self, query):
        allow(query, ())
        self.send_bytes(200, OPENAPI.read_bytes(), "application/json")

    def convert(self, query):
        self.send_json(200, get_convert(query))

    def meeting(self, query):
        allow(query, ())
        self.send_json(200, post_meeting(self.read_json()))

    def almanac(self, query):
        given = self.headers.get("Authorization", "")
        if not self.key or not hmac.compare_digest(given.encode(), f"Bearer {self.key}".encode()):
            problem = Problem(401, "key_invalid", "The almanac wants a bearer key.")
            problem.headers = {"WWW-Authenticate": 'Bearer realm="almanac"'}
            raise problem
        self.send_json(200, get_almanac(query))


def main():
    options = service.parser(__doc__.partition("\n")[0]).parse_args()
    Handler.key = os.environ.pop("WORLDCLOCK_KEY", "")
    return service.run(Handler, options)


if __name__ == "__main__":
    sys.exit(main())
