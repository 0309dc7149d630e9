"""The tokenizer and chat template of a model, from a Hugging Face folder or from a GGUF file.

Leaves out: downloading, weights, and `tokenizer.model` (a SentencePiece file without tokenizer.json is
refused with the line that converts it).
"""

from collections.abc import Mapping
from pathlib import Path

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from groschen.errors import BadFile
from groschen.files import is_there, parse_object, read_object, read_text
from groschen.model.gguf_format import read_gguf
from groschen.model.values import ids
from groschen.text.bundle import (
    GENERATION_CONFIG,
    MORE_TEMPLATES,
    SPECIAL_TOKENS_MAP,
    TEMPLATE,
    TOKENIZER,
    TOKENIZER_CONFIG,
    Text,
)
from groschen.text.chat import ChatTemplate
from groschen.text.gguf_vocab import Metadata, tokenizer_from_gguf
from groschen.text.tokenizer import SpecialIds, Tokenizer
from groschen.text.tokenizer_file import build

Json = dict[str, object]


def load_text(source: str | Path | Metadata, *, num_rows: int | None = None) -> Text:
    """The text side of a model.

    source: a folder, a .gguf file, or the metadata of one. num_rows: rows of the model's embedding, to check
    against; by default what config.json says. Raises BadFile for what is missing, corrupt or does not fit
    together, Unsupported for a kind of vocabulary or template that is not known here.
    """
    if isinstance(source, Mapping):
        text = _from_metadata(source, "the GGUF file")
    elif Path(source).suffix == ".gguf" or Path(source).is_file():  # caches name files by their digest alone
        text = _from_metadata(read_gguf(Path(source)).metadata, str(source))
    else:
        folder = Path(source)
        text = _from_folder(folder)
        num_rows = num_rows if num_rows is not None else _rows(_read_json(folder / "config.json"))
    if num_rows is not None:
        _check_rows(text, num_rows)
    return text


def _check_rows(text: Text, num_rows: int) -> None:
    """Raises BadFile if the tokenizer is that of another model. Added tokens may have no row: Gemma 3's is
    one more than its embedding has; asking for it is an error of the request.
    """
    tokenizer = text.tokenizer
    added = tokenizer.backend.get_added_tokens_decoder()
    if any(i not in added and tokenizer.token_bytes(i) for i in range(num_rows, tokenizer.vocab_size)):
        raise BadFile(
            f"{text.source} has a tokenizer of {tokenizer.vocab_size} tokens for a model of {num_rows}; they "
            "do not belong together: take both from the same model"
        )


def _from_metadata(metadata: Metadata, source: str) -> Text:
    tokenizer = tokenizer_from_gguf(metadata)
    ids = {
        "bos_token": tokenizer.bos_id,
        "eos_token": next(iter(tokenizer.eos_ids), None),
        "pad_token": tokenizer.pad_id
        if metadata.get("tokenizer.ggml.padding_token_id") == tokenizer.pad_id
        else None,
        "unk_token": tokenizer.unk_id,
    }
    named = {name: tokenizer.token_text(i) for name, i in ids.items() if i is not None}
    sources = {
        key.removeprefix("tokenizer.chat_template").lstrip(".") or "default": str(value)
        for key, value in metadata.items()
        if key.startswith("tokenizer.chat_template") and isinstance(value, str)
    }
    template = ChatTemplate(sources, special_tokens=named) if sources else None
    return Text(tokenizer=tokenizer, template=template, named_tokens=named, source=source)


def _from_folder(folder: Path) -> Text:
    if not folder.is_dir():
        raise BadFile(f"{folder} is no folder; expected one with {TOKENIZER}, or a .gguf file")
    settings = _read_json(folder / TOKENIZER_CONFIG)
    generation = _read_json(folder / GENERATION_CONFIG)
    # special_tokens_map.json repeats tokenizer_config.json; old folders have names in it alone.
    named = _named_tokens({**_read_json(folder / SPECIAL_TOKENS_MAP), **settings})
    backend = _read_backend(folder)
    _add_missing(backend, settings, named, folder)
    special = _special_ids(backend, _read_json(folder / "config.json"), generation, named, folder)
    sources = _templates(folder, settings)
    return Text(
        tokenizer=Tokenizer(backend, special),
        template=ChatTemplate(sources, special_tokens=named) if sources else None,
        named_tokens=named,
        settings=settings,
        generation=generation,
        source=str(folder),
    )


def _read_backend(folder: Path) -> Backend:
    path = folder / TOKENIZER
    if not is_there(path):
        if (folder / "tokenizer.model").is_file():
            raise BadFile(
                f"{folder} has only tokenizer.model; expected {TOKENIZER}: write it once with transformers, "
                f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
            )
        raise BadFile(f"{folder} has no {TOKENIZER}; copy it from where the model came from")
    content = read_text(path)
    return build(parse_object(content, path), content, path)


def _add_missing(backend: Backend, settings: Json, named: dict[str, str], folder: Path) -> None:
    """Add what tokenizer_config.json knows beyond tokenizer.json, as transformers does."""
    for token_id, token in _listed_tokens(settings, folder):
        if backend.get_added_tokens_decoder().get(token_id) != token:
            (backend.add_special_tokens if token.special else backend.add_tokens)([token])
        if backend.token_to_id(token.content) != token_id:
            raise BadFile(
                f"{folder / TOKENIZER_CONFIG} gives the token {token.content!r} the id {token_id}, "
                f"{TOKENIZER} has {backend.token_to_id(token.content)}; take both files from the same model"
            )
    extra = settings.get("additional_special_tokens") or settings.get("extra_special_tokens") or []
    texts = [*named.values(), *(_content(token) for token in (extra if isinstance(extra, list) else []))]
    special = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    missing = [text for text in dict.fromkeys(texts) if text and text not in special]
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in missing])


def _listed_tokens(settings: Json, folder: Path) -> list[tuple[int, AddedToken]]:
    """The entries of added_tokens_decoder in the order of their ids."""
    listed = settings.get("added_tokens_decoder", {})
    if not isinstance(listed, dict) or not all(
        name.isdecimal() and len(name) < 10 and isinstance(entry, dict) and _content(entry)
        for name, entry in listed.items()
    ):
        raise BadFile(
            f"{folder / TOKENIZER_CONFIG} has an added_tokens_decoder that is no object of ids to tokens; "
            "get it again"
        )
    return [(int(name), _as_added(listed[name])) for name in sorted(listed, key=int)]


def _special_ids(
    backend: Backend, config: Json, generation: Json, named: dict[str, str], folder: Path
) -> SpecialIds:
    def of(name: str) -> int | None:
        i: int | None = backend.token_to_id(named[name]) if name in named else None
        return i

    size = backend.get_vocab_size(with_added_tokens=True)
    # generation_config.json is what transformers stops at; config.json stands in for it, also inside
    # text_config.
    nested = config.get("text_config")
    places = {GENERATION_CONFIG: generation, "config.json": config}
    places |= {"config.json, text_config": nested} if isinstance(nested, dict) else {}

    def first(key: str) -> tuple[int, ...]:
        for name, place in places.items():
            if place.get(key) is not None:
                return ids(place[key], size, f"{folder}/{name}: {key!r}")
        return ()

    own, pad = of("eos_token"), of("pad_token")
    ends = [*first("eos_token_id"), *([own] if own is not None else [])]
    if pad is None:
        pad = next(iter(first("pad_token_id")), None)
    return SpecialIds(eos=tuple(dict.fromkeys(ends)), bos=of("bos_token"), pad=pad, unk=of("unk_token"))


def _templates(folder: Path, settings: Json) -> dict[str, str]:
    """Name to source; a chat_template.jinja goes before what tokenizer_config.json says, as in
    transformers.
    """
    written = settings.get("chat_template") or {}
    if isinstance(written, str):
        written = {"default": written}
    elif isinstance(written, list) and all(isinstance(entry, dict) for entry in written):
        pairs = [(entry.get("name"), entry.get("template")) for entry in written]
        written = dict(pairs) if all(isinstance(name, str) for name, _ in pairs) else None
    if not isinstance(written, dict) or not all(
        isinstance(text, str) for item in written.items() for text in item
    ):
        raise BadFile(
            f"{folder / TOKENIZER_CONFIG} has a chat_template that is neither a text nor a list of names and "
            "templates; get it again"
        )
    sources: dict[str, str] = dict(written)
    if is_there(folder / TEMPLATE):
        sources["default"] = read_text(folder / TEMPLATE)
    for path in sorted((folder / MORE_TEMPLATES).glob("*.jinja")):
        sources[path.stem] = read_text(path)
    return sources


def _named_tokens(settings: Mapping[str, object]) -> dict[str, str]:
    named = {name: _content(value) for name, value in settings.items() if name.endswith("_token")}
    return {name: text for name, text in named.items() if text}


def _content(token: object) -> str:
    """The text of a token that is written as text or as an object; empty for anything else, e.g.
    add_bos_token.
    """
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else ""


def _as_added(entry: Json) -> AddedToken:
    flags = {
        name: bool(entry.get(name, False))
        for name in ("single_word", "lstrip", "rstrip", "normalized", "special")
    }
    return AddedToken(_content(entry), **flags)


def _rows(config: Json) -> int | None:
    nested = config.get("text_config")
    rows = config.get("vocab_size", nested.get("vocab_size") if isinstance(nested, dict) else None)
    return rows if isinstance(rows, int) else None


def _read_json(path: Path) -> Json:
    """The object in a file that may be missing; then empty."""
    return read_object(path) if is_there(path) else {}
