"""Makes the tokenizer of a text encoder, from the model's own files or from CLIP's vocabulary."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from imagine_plugins.loaders.architectures import TextPart
from imagine_plugins.loaders.configs import WHOLE_TOKENIZERS, ConfigError, Read
from imagine_plugins.loaders.vocabulary import END, START, Merge, clip_vocabulary


def tokenizer(part: TextPart, read: Read, folder: str) -> Any:
    """The tokenizer for `part`, from the files under `folder` where there are any.

    As transformers does: a CLIPTokenizer takes no more of the files than tokens and merges, a
    PreTrainedTokenizerFast all that tokenizer.json says, normalizer included.
    """
    settings = _settings(read, folder)
    special = {
        "bos_token": _token(settings, "bos_token", START),
        "eos_token": _token(settings, "eos_token", END),
        "unk_token": _token(settings, "unk_token", END),
        "pad_token": _token(settings, "eos_token", END),
    }
    size = part.config["vocab_size"]
    build = _whole if _is_whole(read, folder) else _clip
    made = build(read, folder, special, size)
    if len(made) > size:
        raise ConfigError(f"{folder} has {len(made)} tokens, its text encoder knows {size}")
    made.model_max_length = part.config["max_position_embeddings"]
    # Only now: a pad token given at construction becomes special, and "!" in prompts with it.
    made.pad_token = _token(settings, "pad_token", part.pad)
    return made


def _is_whole(read: Read, folder: str) -> bool:
    index = read("model_index.json")
    entry = index.get(folder) if isinstance(index, dict) else None
    return isinstance(entry, list) and entry[1:] in ([name] for name in WHOLE_TOKENIZERS)


def _whole(read: Read, folder: str, special: Mapping[str, str], size: int) -> Any:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    file = f"{folder}/tokenizer.json"
    content = read(file)
    if content is None:
        raise ConfigError(f"the file {file} is missing")
    whole = content if isinstance(content, dict) else {}
    model, added = whole.get("model"), whole.get("added_tokens")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    ids = [*vocabulary.values()] if isinstance(vocabulary, dict) else []
    if isinstance(added, list):
        ids += [token.get("id") for token in added if isinstance(token, dict)]
    _require_ids(file, ids, size)
    try:
        backend = Tokenizer.from_str(json.dumps(content))
        made = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
        made("a cat, 1")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # what panics in tokenizers is no Exception
        raise ConfigError(f"{file} is not understood ({error!s:.200})") from error
    return made


def _require_ids(file: str, ids: Iterable[object], size: int) -> None:
    """Refuse tokens beyond the text encoder's: they fail at use, the largest after gigabytes."""
    if any(isinstance(number, int) and number >= size for number in ids):
        raise ConfigError(f"{file} numbers tokens beyond the {size} that its text encoder knows")


def _clip(read: Read, folder: str, special: Mapping[str, str], size: int) -> Any:
    from transformers import CLIPTokenizer

    vocabulary, merges = _vocabulary(read, folder) or clip_vocabulary()
    if len(vocabulary) <= size:  # else that is said
        _require_ids(f"the vocabulary of {folder}", vocabulary.values(), size)
    return CLIPTokenizer(vocab=dict(vocabulary), merges=list(merges), **special)


def _settings(read: Read, folder: str) -> Mapping[str, Any]:
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        content = read(f"{folder}/{name}")
        if isinstance(content, dict):
            settings.update(content)
    return settings


def _token(settings: Mapping[str, Any], name: str, default: str) -> str:
    value = settings.get(name)
    if isinstance(value, dict):  # an AddedToken with its options
        value = value.get("content")
    return value if isinstance(value, str) else default


def _vocabulary(read: Read, folder: str) -> tuple[Mapping[str, int], list[Merge]] | None:
    whole = read(f"{folder}/tokenizer.json")
    if isinstance(whole, dict):
        model = whole.get("model")
        if not isinstance(model, dict) or model.get("type") != "BPE":
            raise ConfigError(f"{folder}/tokenizer.json is no byte-pair tokenizer")
        return _checked(folder, model.get("vocab"), model.get("merges"))
    vocabulary, merges = read(f"{folder}/vocab.json"), read(f"{folder}/merges.txt")
    if vocabulary is None and merges is None:
        return None
    lines = merges.splitlines() if isinstance(merges, str) else None
    pairs = lines and [line for line in lines if line and not line.startswith("#version")]
    return _checked(folder, vocabulary, pairs)


def _checked(
    folder: str, vocabulary: object, merges: object
) -> tuple[Mapping[str, int], list[Merge]]:
    if not isinstance(vocabulary, dict) or not isinstance(merges, list):
        raise ConfigError(f"the files of {folder} are damaged")
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    if not all(len(pair) == 2 for pair in pairs):
        raise ConfigError(f"the merges of {folder} are damaged")
    return vocabulary, [(first, second) for first, second in pairs]
