"""The small byte-pair tokenizer: it keeps the words that doodle knows and leaves all others out.

What the denoiser was not shown it does not pass over. Taught with random words beside its captions
it still lost a fourth of its subjects to five strange ones, and colours to a negative prompt of
nothing else; words that never become tokens can do no harm.
"""

import json
import random
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from doodle import words
from doodle.captions import caption
from doodle.facts import random_scene
from doodle.runs import say
from doodle.subjects import SUBJECTS

LENGTH, MERGES = 48, 760
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
LETTER = r"[\p{L}\p{N}]"
START, END = f"(?<!{LETTER})", f"(?!{LETTER})"


def phrases() -> list[list[str]]:
    """All that captions are made of, as lists of words."""
    tables = (
        words.PLACE_WORDS, words.SCENERY, words.TIME_WORDS, words.STYLE_BEFORE, words.STYLE_AFTER,
        words.SIZE_WORDS, words.SIDE_WORDS, words.COLOR_WORDS,
        {"": words.HAT_WORDS + words.RIDER_WORDS + words.NEON_WORDS + words.NEON_LIGHTS},
        {name: subject.words for name, subject in SUBJECTS.items()},
    )  # fmt: skip
    return [
        re.findall(r"\w+", text) for table in tables for texts in table.values() for text in texts
    ]


def rules() -> list[tuple[str, str]]:
    """The replacements in a lower-case prompt, in this order: regular expression, text.

    A word that is left out becomes a `~` first, since links before it go with it.
    """
    said = phrases()
    known = sorted({word for phrase in said for word in phrase} - {"8"})
    lonely = [word for word in words.COMPANIONS if word in known]
    colors = "|".join(word for names in words.COLOR_WORDS.values() for word in names)
    return [
        (rf"[^\p{{L}}\p{{N}},.]+|\.(?={LETTER})|(?<=\p{{N}}),(?=\p{{N}})", " "),
        (r"\.", ","),
        (rf"{START}depth of field{END}", "~"),  # no meadow
        (rf"{START}(?:dark|light) (?=(?:{colors}){END})", ""),  # no time of day
        (rf"{START}water colou?r{END}", "watercolor"),
        *_plurals(known),
        (rf"{START}(?!(?:{'|'.join(known)}|8(?= bit)){END}){LETTER}+", "~"),
        *_leave_out(),
        # Of their plurals, places are made: "among trees", "a field of flowers".
        (rf"{START}(?<!among )trees{END}", "tree"),
        (rf"{START}(?<!of )flowers{END}", "flower"),
        (rf"{START}(?:{'|'.join(lonely)}){END}{_alone(said)}", "~"),
        *_leave_out(),
        (r"(?:\s*,)+(?=\s*,)", ""),
        (r"^[\s,]+|[\s,]+$", ""),
    ]


def _plurals(known: list[str]) -> list[tuple[str, str]]:
    """Makes each word singular that is known so only."""
    singular = [word for word in known if word + "s" not in known and word not in words.LINKS]
    hissing = [word for word in singular if word.endswith(("s", "sh", "ch"))]
    plain = [word for word in singular if word not in hissing]
    stems = [word.removesuffix("y") for word in singular if word.endswith("y")]
    return [
        (rf"(?=ies{END})(?<={'|'.join(stems)})ies", "y"),
        (rf"(?=es{END})(?<={'|'.join(hissing)})es", ""),
        (rf"(?=s{END})(?<={'|'.join(plain)})s", ""),
    ]


def _leave_out() -> list[tuple[str, str]]:
    """Leaves out every `~`, and the links before it unless they lead on to what follows."""
    link = rf"{START}(?:{'|'.join(words.LINKS)}){END}"
    return [
        (rf"^\s*(?:{link}\s*)*(?:~\s*)+of{END}", ""),  # "concept art of a cat"
        (rf"\s*(?:~\s*)+(?={START}(?:(?:a|an|the|very){END}|(?!{link}){LETTER}))", " "),
        (rf"(?:{link}\s*)*(?:~\s*)+", " "),
        (rf"(?:{link}\s*)+(?=$|,)", " "),
    ]


def _alone(said: list[list[str]]) -> str:
    """Looks around a companion, which has to be just behind, for the neighbours it needs."""
    pairs = sorted({pair for phrase in said for pair in pairwise(phrase)})
    company, links = words.COMPANIONS, words.LINKS
    before = [f"{one} {two}" for one, two in pairs if two in company and one not in links]
    after = [f"(?<={one}) {two}{END}" for one, two in pairs if one in company and two not in links]
    return f"(?<!{'|'.join(before)})(?!{'|'.join(after)})"


def train_tokenizer(folder: Path) -> None:
    """Learns merges from 40,000 captions; every byte stays a token."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Whitespace(),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        min_frequency=20,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    rng = random.Random("tokenizer")
    learner.train_from_iterator((caption(random_scene(rng), rng) for _ in range(40_000)), trainer)
    merges = [tuple(pair) for pair in _merges(learner)][:MERGES]
    tokens = [
        *alphabet,
        *(c + "</w>" for c in alphabet),
        *dict.fromkeys(a + b for a, b in merges),
        BOS,
        EOS,
    ]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    assembled(vocabulary, merges).save_pretrained(folder)
    say(f"tokenizer: {len(vocabulary)} tokens, {len(merges)} merges")


def assembled(vocabulary: dict[str, int], merges: list[Any]) -> Any:
    """The tokenizer with these tokens and merges: CLIP's, after all that `rules` leave."""
    from tokenizers import Regex, normalizers
    from transformers import CLIPTokenizer, PreTrainedTokenizerFast

    clip = CLIPTokenizer(vocab=vocabulary, merges=merges).backend_tokenizer
    left_out = [normalizers.Replace(Regex(pattern), text) for pattern, text in rules()]
    clip.normalizer = normalizers.Sequence([clip.normalizer, *left_out])
    # CLIPTokenizer itself would be loaded with its own normalizer.
    return PreTrainedTokenizerFast(
        tokenizer_object=clip, model_max_length=LENGTH,
        bos_token=BOS, eos_token=EOS, unk_token=EOS, pad_token=EOS,
    )  # fmt: skip


def _merges(learner: Any) -> list[Any]:
    found = json.loads(learner.to_str())["model"]["merges"]
    return [pair.split(" ") if isinstance(pair, str) else pair for pair in found]


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer as saved in `folder`."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)


def tokens_of(tokenizer: Any, texts: list[str]) -> Any:
    """The tokens of `texts`, all of one length."""
    return tokenizer(
        texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
    ).input_ids
