"""Who is calling, beyond the gateway's own tokens: JSON Web Tokens of an issuer, and callers without any credential (docs/policies.md).
What each sees is asked at the public door, in the quick start's own catalog."""
import time

import pytest

from harness import gateway as gateways
from harness.jwt import JWT_KEY, jwt
from harness.mcp import ModernMcp

PUBLIC, EXPLORERS, STAFF = "world_time", "almanac", "service_health"
HOUR_S = 3600


@pytest.fixture(scope="module")
def issued(start_quickstart, tmp_path_factory):
    """A gateway that takes JWTs of one issuer for one audience, and nobody without a credential."""
    key = tmp_path_factory.mktemp("keys") / "jwt.key"
    key.write_bytes(JWT_KEY)
    key.chmod(0o600)
    config = gateways.quickstart_config()
    config["auth"] = {"jwt": {"key_file": str(key), "issuer": "https://issuer.example.com", "audience": "gatehouse"}}
    with start_quickstart(config=config) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def open_door(start_quickstart):
    """A gateway that serves callers without a credential, in a role."""
    config = gateways.quickstart_config()
    config["auth"] = {"anonymous_role": "developer"}
    with start_quickstart(config=config) as gateway:
        yield gateway


def claims(user=gateways.GUEST, **more):
    now = int(time.time())
    good = {"sub": user, "jti": "j-1", "iss": "https://issuer.example.com", "aud": ["gatehouse", "other"], "iat": now, "exp": now + HOUR_S}
    return {name: value for name, value in {**good, **more}.items() if value != "absent"}


def seen(gateway, token):
    with ModernMcp(gateway.mcp_url, token) as mcp:
        return {PUBLIC, EXPLORERS, STAFF} & set(mcp.tools())


def convert(gateway, token):
    with ModernMcp(gateway.mcp_url, token) as mcp:
        return mcp.call("convert_units", {"value": 1, "from_unit": "km", "to_unit": "m"})


@pytest.mark.parametrize("user, more, sees", [
    (gateways.GUEST, {"teams": ["explorers"]}, {PUBLIC, EXPLORERS}),
    (gateways.GUEST, {}, {PUBLIC}),
    (gateways.GUEST, {"teams": []}, {PUBLIC}),
    (gateways.GUEST, {"teams": "explorers"}, {PUBLIC}),
    (gateways.GUEST, {"teams": ["staff"]}, {PUBLIC}),
    (gateways.GUEST, {"teams": None}, {PUBLIC}),
    (gateways.GUEST, {"teams": None, "is_admin": True}, {PUBLIC, EXPLORERS}),  # the claim makes nobody an administrator
    (gateways.ADMIN, {"teams": ["staff"]}, {PUBLIC, STAFF}),
    (gateways.ADMIN, {"teams": None}, {PUBLIC}),
    (gateways.ADMIN, {"teams": None, "is_admin": True}, {PUBLIC, EXPLORERS, STAFF}),
], ids=["team", "no claim", "no teams", "no list", "another team", "null", "claims to be admin", "admin's team", "admin's null", "admin"])
def test_a_jwt_sees_what_its_teams_see(issued, user, more, sees):
    token = jwt(claims(user, **more))
    assert seen(issued, token) == sees
    assert convert(issued, token).result["structuredContent"]["result"] == 1000


BAD = {
    "expired": ({"exp": 1700000000}, {}),
    "without an end": ({"exp": "absent"}, {}),
    "without an id": ({"jti": "absent"}, {}),
    "without a subject": ({"sub": "absent"}, {}),
    "of another issuer": ({"iss": "https://elsewhere.example.com"}, {}),
    "for another audience": ({"aud": ["other"]}, {}),
    "not yet good": ({"nbf": 4102444800}, {}),
    "from the future": ({"iat": 4102444800}, {}),
    "without a signature": ({}, {"algorithm": "none"}),
    "with another algorithm's name": ({}, {"algorithm": "HS512"}),
    "with another key": ({}, {"key": b"x" * 32}),
}


@pytest.mark.parametrize("row", BAD)
def test_a_bad_jwt_is_refused_as_every_bad_credential_is(issued, row):
    more, how = BAD[row]
    reply = convert(issued, jwt(claims(teams=["explorers"], **more), **how))
    assert (reply.status, reply.error["data"]["code"]) == (401, "auth.token.invalid")


def test_a_gateway_without_an_anonymous_role_asks_for_a_credential(issued):
    reply = convert(issued, None)
    assert (reply.status, reply.error["data"]["code"]) == (401, "auth.token.missing")


def test_callers_without_a_credential_have_their_role_on_public_records(open_door):
    assert seen(open_door, None) == {PUBLIC}
    assert convert(open_door, None).result["structuredContent"]["result"] == 1000
    with ModernMcp(open_door.mcp_url, None) as mcp:
        hidden, absent = mcp.call(EXPLORERS, {}), mcp.call("no_such_tool", {})
    assert hidden.error["data"]["code"] == absent.error["data"]["code"] == "catalog.record.not_found"


@pytest.mark.parametrize("token", ["gh_0123456789abcdef0123456789abcdef0123456789abcdef", jwt(claims())])
def test_a_bad_credential_does_not_become_no_credential(open_door, token):
    reply = convert(open_door, token)
    assert (reply.status, reply.error["data"]["code"]) == (401, "auth.token.invalid")
