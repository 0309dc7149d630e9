"""The text side of a model: its tokenizer and its chat template, and the files in which Hugging Face folders
keep both.

Leaves out: reading those files (`groschen.text.load`) and writing them to a disk.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from tokenizers import AddedToken

from groschen.errors import Unsupported
from groschen.text.chat import ChatTemplate
from groschen.text.tokenizer import Tokenizer

TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
GENERATION_CONFIG = "generation_config.json"
SPECIAL_TOKENS_MAP = "special_tokens_map.json"
TEMPLATE = "chat_template.jinja"
MORE_TEMPLATES = "additional_chat_templates"


@dataclass(frozen=True, kw_only=True)
class Text:
    """What turns messages into ids and ids into text, for one model.

    settings and generation: tokenizer_config.json and generation_config.json as they were read, empty for a
    GGUF file.
    """

    tokenizer: Tokenizer
    template: ChatTemplate | None
    named_tokens: Mapping[str, str] = field(default_factory=dict)  # "bos_token" and the like to their text
    settings: Mapping[str, object] = field(default_factory=dict)
    generation: Mapping[str, object] = field(default_factory=dict)
    source: str = "the model"

    def chat_template(self) -> ChatTemplate:
        """The chat template; Unsupported, with what to do, if the model has none."""
        if self.template is None:
            raise Unsupported(
                f"{self.source} has no chat template, so messages have no form that it was trained on; it is "
                f"probably a base model: use its instruct version, put a {TEMPLATE} into its folder, or give "
                "it plain text instead"
            )
        return self.template

    def files(self) -> dict[str, bytes]:
        """Name to content of the files that transformers, vLLM and llama.cpp's converter read back to the
        same ids.
        """
        files = {
            TOKENIZER: self.tokenizer.backend.to_str(pretty=True).encode(),
            TOKENIZER_CONFIG: _json({**self._tokenizer_config(), **self.named_tokens}),
            SPECIAL_TOKENS_MAP: _json(self.named_tokens),
            GENERATION_CONFIG: _json(self._generation_config()),
        }
        for name, source in (self.template.sources if self.template else {}).items():
            path = TEMPLATE if name == "default" else f"{MORE_TEMPLATES}/{name}.jinja"
            files[path] = source.encode()
        return files

    def _tokenizer_config(self) -> dict[str, object]:
        kept = {name: value for name, value in self.settings.items() if name != "chat_template"}
        added = self.tokenizer.backend.get_added_tokens_decoder()
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",  # takes tokenizer.json as it is
            "clean_up_tokenization_spaces": False,
            **kept,
            "added_tokens_decoder": {str(i): _added_token(added[i]) for i in sorted(added)},
        }

    def _generation_config(self) -> dict[str, object]:
        tokenizer = self.tokenizer
        own: dict[str, object] = {"pad_token_id": tokenizer.pad_id}
        if tokenizer.bos_id is not None:
            own["bos_token_id"] = tokenizer.bos_id
        if tokenizer.eos_ids:
            own["eos_token_id"] = list(tokenizer.eos_ids)
        return {**own, **self.generation}


def _added_token(token: AddedToken) -> dict[str, object]:
    return {
        "content": token.content,
        "lstrip": token.lstrip,
        "normalized": token.normalized,
        "rstrip": token.rstrip,
        "single_word": token.single_word,
        "special": token.special,
    }


def _json(value: Mapping[str, object]) -> bytes:
    return (json.dumps(dict(value), ensure_ascii=False, indent=2) + "\n").encode()
