"""Clients that offer HTTP/2 with an HTTP/1.1 request, as Java's does: the offer is declined, and the request is answered."""

import socket
from http.client import HTTPResponse

import orjson
import pytest

from tests.acceptance.servers import TIMEOUT_S, Admin, Server

OFFER = "Connection: Upgrade, HTTP2-Settings\r\n{upgrade}\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
KEPT = {"type": "order", "amount": 100}


@pytest.mark.parametrize("upgrade", ["Upgrade: h2c", "upgrade:H2C ", "UPGRADE: \th2c"])
@pytest.mark.parametrize("in_one_piece", [True, False], ids=["together", "body apart"])
def test_a_request_that_offers_http2_keeps_its_body(server: Server, admin: Admin, upgrade: str, in_one_piece: bool) -> None:
    body = orjson.dumps({"raw_data": KEPT})
    head = (
        f"POST /activities HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {admin.key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{OFFER.format(upgrade=upgrade)}\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S) as connection:
        for _ in range(2):  # the connection goes on
            for piece in [head + body] if in_one_piece else [head, body]:
                connection.sendall(piece)
            answer = HTTPResponse(connection)
            answer.begin()
            result = orjson.loads(answer.read())
            assert (answer.version, answer.status) == (11, 201), result
            assert result["data"]["raw_data"] == KEPT
