"""Who is let in."""

import base64
import os
import time
from pathlib import Path

import openai
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from groschen.errors import BadFile, BadRequest
from groschen.serve.app import AppConfig
from groschen.serve.keys import KeyFile, RequireKey, make_key
from serve.serving import serving


async def greet(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"hello {request.scope.get('state', {}).get('key_name')}")


def client_of(path: Path) -> TestClient:
    paths = ("/", "/health", "/metrics", "/glance", "/v1/models", "/static/page.js")
    routes = [Route(each, greet) for each in paths]
    return TestClient(Starlette(routes=routes, middleware=[Middleware(RequireKey, keys=KeyFile(path))]))


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def test_a_made_key_opens_and_its_file_does_not_hold_it(keys: Path) -> None:
    key = make_key("anna", keys)
    assert key not in keys.read_text() and key.removeprefix("sk-groschen-") not in keys.read_text()
    assert keys.stat().st_mode & 0o777 == 0o600
    answer = client_of(keys).get("/v1/models", headers=bearer(key))
    assert (answer.status_code, answer.text) == (200, "hello anna")


def test_two_keys_open_and_each_has_its_name(keys: Path) -> None:
    made = {name: make_key(name, keys) for name in ("anna", "ben")}
    client = client_of(keys)
    for name, key in made.items():
        assert client.get("/v1/models", headers=bearer(key)).text == f"hello {name}"


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/glance", "/v1/nothing"])
@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer"}, {"authorization": "Token abc"}])
def test_without_a_key_nothing_but_the_page_and_health_opens(
    keys: Path, path: str, headers: dict[str, str]
) -> None:
    make_key("anna", keys)
    answer = client_of(keys).get(path, headers=headers)
    assert answer.status_code == 401 and "www-authenticate" in answer.headers
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", ["/", "/health", "/static/page.js"])
def test_the_page_and_health_need_no_key(keys: Path, path: str) -> None:
    make_key("anna", keys)
    assert client_of(keys).get(path).status_code == 200


def test_a_wrong_key_is_told_so_and_not_repeated(keys: Path) -> None:
    make_key("anna", keys)
    answer = client_of(keys).get("/v1/models", headers=bearer("sk-wrong"))
    assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"
    assert "sk-wrong" not in answer.text


def test_a_browser_without_scripts_sends_the_key_as_a_password(keys: Path) -> None:
    key, client = make_key("anna", keys), client_of(keys)
    assert client.get("/glance").headers["www-authenticate"].startswith("Basic")
    encoded = base64.b64encode(f"anybody:{key}".encode()).decode()
    assert client.get("/glance", headers={"authorization": f"Basic {encoded}"}).text == "hello anna"
    assert client.get("/glance", headers={"authorization": "Basic ???"}).status_code == 401


def test_a_key_is_added_and_taken_back_while_the_server_runs(keys: Path) -> None:
    first, client = make_key("anna", keys), client_of(keys)
    second = make_key("ben", keys)
    assert client.get("/v1/models", headers=bearer(second)).status_code == 200
    keys.write_text(
        "".join(line for line in keys.read_text().splitlines(keepends=True) if not line.startswith("anna"))
    )
    assert client.get("/v1/models", headers=bearer(first)).status_code == 401
    assert client.get("/v1/models", headers=bearer(second)).status_code == 200


@pytest.mark.parametrize("damage", ["missing", "garbage", "writable", "made writable"])
def test_a_file_that_broke_lets_nobody_in(keys: Path, damage: str) -> None:
    key, client = make_key("anna", keys), client_of(keys)
    match damage:
        case "missing":
            keys.unlink()
        case "garbage":
            keys.write_text("anna:sha256:zz:zz\n")
        case "writable":
            keys.chmod(0o666)
            keys.write_text(keys.read_text() + "\n")
        case "made writable":
            time.sleep(0.05)  # the clock of a file system has steps of some milliseconds
            keys.chmod(0o666)
    answer = client.get("/v1/models", headers=bearer(key))
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "keys_unreadable"
    assert str(keys) not in answer.text


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("anna:md5:aa:bb\n", "line 1: expected name:sha256"),
        ("# mine\n\nanna\n", "line 3"),
        ("anna:sha256:aa:bbcc\n", "has 2 bytes"),
        ("anna:sha256:xx:bb\n", "hexadecimal"),
    ],
)
def test_a_malformed_line_is_named(keys: Path, text: str, word: str) -> None:
    keys.write_text(text)
    keys.chmod(0o600)
    with pytest.raises(BadFile, match=word):
        KeyFile(keys)


def test_comments_and_empty_lines_are_no_keys(keys: Path) -> None:
    key = make_key("anna", keys)
    keys.write_text(f"# who may\n\n{keys.read_text().strip()}  # since May\n")
    assert KeyFile(keys).name_of(key) == "anna"


def test_a_file_that_others_may_write_is_refused(keys: Path) -> None:
    make_key("anna", keys)
    keys.chmod(0o620)
    with pytest.raises(BadFile, match="chmod go-w"):
        KeyFile(keys)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(keys: Path) -> None:
    make_key("anna", keys)
    os.chown(keys, 12345, 12345)
    with pytest.raises(BadFile, match="another user"):
        KeyFile(keys)


def test_a_name_is_taken_once_and_is_plain(keys: Path) -> None:
    make_key("anna", keys)
    with pytest.raises(BadRequest, match="already"):
        make_key("anna", keys)
    for name in ("", "a:b", "a b", "ä", "x" * 65, "a\nb"):
        with pytest.raises(BadRequest, match="can't be named"):
            make_key(name, keys)


def test_a_last_line_without_an_end_is_not_glued_to_the_new_key(keys: Path) -> None:
    first = make_key("anna", keys)
    keys.write_text(keys.read_text().rstrip("\n"))
    second = make_key("ben", keys)
    assert [KeyFile(keys).name_of(key) for key in (first, second)] == ["anna", "ben"]


def test_the_official_client_needs_the_key_and_the_page_does_not(keys: Path) -> None:
    key = make_key("anna", keys)
    with serving(app_config=AppConfig(keys=KeyFile(keys))) as server:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as right:
            assert right.models.list().data[0].id == "penny"
        wrong = openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-wrong", max_retries=0)
        with wrong, pytest.raises(openai.AuthenticationError) as caught:
            wrong.chat.completions.create(model="penny", messages=[{"role": "user", "content": "a"}])
        assert caught.value.code == "invalid_api_key"
        assert server.get("/metrics").status == 401
        assert server.get("/").status == server.get("/health").status == 200
        assert server.get("/v1/models", authorization=f"Bearer {key}").status == 200
