"""`GET /v1/models` and `/v1/models/{id}`: what is served, and what each model can do."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from groschen.serve.host import host_of
from groschen.serve.prompt import can_switch_reasoning
from groschen.serve.served import Served
from groschen.serve.wire import json_response

PATH = "/v1/models"


def routes() -> list[BaseRoute]:
    """Both routes; the host is the application's. A name may hold slashes, as a hub id does."""
    return [
        Route(PATH, _list, methods=["GET"]),
        Route(PATH + "/{name:path}", _one, methods=["GET"]),
    ]


def model_json(served: Served) -> dict[str, object]:
    """OpenAI's object, `max_model_len` as vLLM has it, and our own facts under `groschen`."""
    config, drawing = served.opened.engine.model.config, served.defaults
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "groschen",
        "max_model_len": served.context,
        "groschen": {
            "system_fingerprint": served.fingerprint,
            "step": served.step,
            "follows": served.wanted.follows,
            "family": config.family,
            "parameters": sum(each.numel() for each in served.opened.engine.model.parameters()),
            "weights": served.mode,
            "chat": served.opened.text.template is not None,
            "tools": served.form.can_call_tools,
            "reasoning": served.form.has_reasoning,
            "reasoning_switch": can_switch_reasoning(served),
            "defaults": {
                "temperature": drawing.temperature,
                "top_p": drawing.top_p,
                "top_k": drawing.top_k,
                "min_p": drawing.min_p,
                "repetition_penalty": drawing.repetition_penalty,
            },
        },
    }


async def _list(request: Request) -> Response:
    models = [model_json(served) for served in host_of(request).models]
    return json_response({"object": "list", "data": models})


async def _one(request: Request) -> Response:
    return json_response(model_json(host_of(request).served(request.path_params["name"])))
