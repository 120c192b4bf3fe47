"""JSON Web Tokens, made by hand: also those that no library would make."""
import base64
import hashlib
import hmac
import json

JWT_KEY = b"0123456789abcdef0123456789abcdef"


def jwt(claims, algorithm="HS256", key=JWT_KEY):
    def part(data):
        return base64.urlsafe_b64encode(data if isinstance(data, bytes) else json.dumps(data).encode()).rstrip(b"=")
    text = part({"alg": algorithm, "typ": "JWT"}) + b"." + part(claims)
    mac = hmac.new(key, text, hashlib.sha256).digest() if algorithm != "none" else b""
    return (text + b"." + part(mac)).decode()
