"""The door: other sites are refused, whatever they ask for, and so is too much."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from pipeline.app.guard import Guard
from pipeline.app.limits import Limits

HERE = "127.0.0.1:8000"


@pytest.mark.parametrize("headers", [
    {"host": "evil.example"}, {"host": "127.0.0.1.evil.example"}, {"host": ""}, {"host": "192.168.0.7:8000"},
    {"host": "[::1"}, {"origin": "https://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:3000"},
    {"origin": "http://localhost:8000"}, {"origin": "file://127.0.0.1:8000"}, {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
])  # fmt: skip
@pytest.mark.parametrize("method, path", [("GET", "/v1/health"), ("POST", "/v1/colorize"), ("POST", "/page/visit")])
def test_another_site_is_refused(client, method, path, headers):
    answer = client.request(method, path, headers={"host": HERE, **headers})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign")


@pytest.mark.parametrize("headers", [
    {}, {"origin": f"http://{HERE}"}, {"host": "localhost:8000", "origin": "http://localhost:8000"},
    {"host": "[::1]:8000"}, {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},  # a link to the page
])  # fmt: skip
def test_this_site_is_not(client, headers):
    assert client.get("/", headers={"host": HERE, **headers}).status_code == 200


def test_a_page_of_another_site_can_not_post_by_navigating(client):
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.post("/page/visit", headers=headers).status_code == 403


@pytest.mark.parametrize("names, addresses, host, allowed", [
    ((), True, "192.168.0.7:8000", True), ((), True, "[fe80::1]", True), ((), True, "evil.example", False),
    (("Photos.Local",), False, "photos.local:8000", True), (("photos.local",), False, "192.168.0.7", False),
])  # fmt: skip
def test_a_server_for_others_answers_to_addresses_and_its_names(names, addresses, host, allowed):
    assert Guard(lambda *_: None, Limits(), names, addresses)._is_ours(host) is allowed  # type: ignore[arg-type]


def test_too_many_bytes_are_refused_with_and_without_their_number(client):
    too_many = b"x" * 2_100_000

    def pieces():
        yield from (too_many[:700_000],) * 3

    form = {"content-type": "multipart/form-data; boundary=x"}
    for content in (too_many, pieces()):
        answer = client.post("/v1/colorize", content=content, headers=form)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert client.post("/v1/colorize", headers={"content-length": "many"}).status_code == 400


def test_every_answer_forbids_what_the_page_does_not_need(client: TestClient):
    for path in ("/", "/v1/health", "/nowhere", "/static/main.js"):
        headers = client.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
        assert "access-control-allow-origin" not in headers
