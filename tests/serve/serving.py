"""A real server in this process, listening on a free port, and the few ways in which tests talk to it."""

import asyncio
import contextlib
import http.client
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from tokenizers import Tokenizer, decoders, models, normalizers

import groschen
from groschen.serve.app import AppConfig, application
from groschen.serve.engines import HostConfig
from groschen.serve.host import Host
from groschen.serve.served import Wanted

PENNY = Wanted(name="penny", source="penny")
PUZZLE = [{"role": "user", "content": "Make 24 from 2, 3 and 4."}]


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object; the reply must be one."""
        assert self.status >= 400, self.body
        error = self.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error

    def events(self) -> list[dict[str, Any]]:
        """The data of a stream's events; it must have ended with [DONE]."""
        assert self.status == 200, self.body
        assert self.headers["content-type"].startswith("text/event-stream")
        data = [
            line.removeprefix("data: ")
            for line in self.body.decode().split("\n\n")
            if line.startswith("data")
        ]
        assert data[-1] == "[DONE]", data[-1]
        return [json.loads(each) for each in data[:-1]]


@dataclass
class Server:
    """A server that runs."""

    port: int
    app: Starlette
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def host(self) -> Host:
        return self.app.state.host

    def request(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """One request on a connection of its own; a body that is not bytes goes out as JSON."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            kind = {"content-type": "application/json"} if data is not None else {}
            connection.request(method, path, data, {**kind, **self.headers, **(headers or {})})
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    def get(self, path: str, **headers: str) -> Reply:
        return self.request("GET", path, headers=headers)

    def post(self, path: str, body: object, **headers: str) -> Reply:
        return self.request("POST", path, body, headers)

    def chat(self, **fields: Any) -> Reply:
        """A chat request to penny about one puzzle, unless the fields say otherwise."""
        return self.post("/v1/chat/completions", {"model": "penny", "messages": PUZZLE, **fields})

    def complete(self, **fields: Any) -> Reply:
        """A completion request to penny."""
        return self.post("/v1/completions", {"model": "penny", **fields})

    def is_empty(self, within_s: float = 5.0) -> bool:
        """Whether no request is open, no row taken and every block of the cache free, soon."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            engines = [each.opened.engine for each in self.host.models]
            if not self.host.tickets and all(
                e.is_idle and e.pool.num_free == e.pool.num_blocks for e in engines
            ):
                return True
            time.sleep(0.02)
        return False


@contextlib.contextmanager
def serving(
    wanted: Sequence[Wanted] = (PENNY,),
    host_config: HostConfig | None = None,
    app_config: AppConfig | None = None,
    *,
    waits: bool = True,
) -> Iterator[Server]:
    """Serve in a thread until the block ends. waits: until the models are loaded."""
    app = application(lambda: Host(wanted, host_config), app_config)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="on", http="h11", ws="none",
        timeout_graceful_shutdown=5,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=asyncio.run, args=(server.serve(sockets=[listener]),))
    thread.start()
    running = Server(listener.getsockname()[1], app)
    try:
        deadline = time.monotonic() + 60
        while not server.started or (waits and running.host.state == "loading"):
            assert time.monotonic() < deadline and thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        yield running
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive(), "the server did not stop"


_TOOL_TEMPLATE = """\
{%- if tools %}<|user|>{% for tool in tools %}{{ tool | tojson }}{% endfor %}<|end|>{% endif %}
{%- for message in messages %}
{%- if message.role == 'assistant' %}<|assistant|>{{ message.content or '' }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|end|>
{%- else %}<|user|>{{ message.content }}<|end|>{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|assistant|>
{%- if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% endif %}"""


def write_tool_model(folder: Path) -> Wanted:
    """penny with a template that knows tools, the system and a switch for thinking, as Qwen writes them."""
    source = Path(groschen.__file__).parent / "penny"
    for path in source.iterdir():
        shutil.copy(path, folder / path.name)
    (folder / "chat_template.jinja").write_text(_TOOL_TEMPLATE)
    return Wanted(name="tooled", source=str(folder))


def write_sentencepiece_model(folder: Path) -> Wanted:
    """penny's weights with a vocabulary that puts a space before every text, as Llama 2's does, and an end
    token that is none.
    """
    source = Path(groschen.__file__).parent / "penny"
    for name in ("config.json", "model.safetensors"):
        shutil.copy(source / name, folder / name)
    words = ["▁the", "▁jumps", "▁over"]
    merges = [(word[:end], word[end]) for word in words for end in range(1, len(word))]
    pieces = ["<unk>", "<s>", "</s>", "▁", *"abcdefghijklmnopqrstuvwxyz", *map("".join, merges)]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.save(str(folder / "tokenizer.json"))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [-1, 2, 900_000]}))
    return Wanted(name="pieces", source=str(folder))
