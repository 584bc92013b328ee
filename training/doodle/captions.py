"""Says what a scene shows, in many ways: parts left out, synonyms, orders."""

import random

from doodle.facts import NEON, NOTHING, RIDER, Scene
from doodle.subjects import SUBJECTS
from doodle.words import (
    COLOR_WORDS,
    HAT_WORDS,
    NEON_LIGHTS,
    NEON_WORDS,
    PLACE_WORDS,
    RIDER_WORDS,
    SCENERY,
    SIDE_WORDS,
    SIZE_WORDS,
    STYLE_AFTER,
    STYLE_BEFORE,
    TIME_WORDS,
)


def caption(scene: Scene, rng: random.Random) -> str:
    """One of the many ways to ask for `scene`; never empty."""
    parts = [_with_article(_noun(scene, rng), rng)]
    tail = _circumstances(scene, rng)
    joiner = ", " if rng.random() < 0.4 else " "
    if scene.subject == NOTHING and rng.random() < 0.9:
        tail = [words for words in tail if words not in PLACE_WORDS[scene.place]]
    body = joiner.join(parts + tail)
    return _styled(body, scene.style, rng)


def _noun(scene: Scene, rng: random.Random) -> str:
    """The subject with its adjectives, without an article."""
    if scene.subject == NOTHING:
        return rng.choice(SCENERY[scene.place])
    if scene.subject == NEON:
        return rng.choice(NEON_WORDS)
    color = _color(scene, rng)
    if scene.subject == RIDER:
        mount = f"{color} {rng.choice(SUBJECTS['horse'].words)}".strip()
        return rng.choice(RIDER_WORDS).format(mount)
    words = SUBJECTS[scene.subject].words
    noun = words[0] if rng.random() < 0.6 else rng.choice(words)
    adjectives = [rng.choice(SIZE_WORDS[scene.size])] if scene.size != "medium" else []
    text = " ".join([*adjectives, *([color] if color else []), noun])
    return f"{text} {rng.choice(HAT_WORDS)}" if scene.hat else text


def _color(scene: Scene, rng: random.Random) -> str:
    usual = "brown" if scene.subject == RIDER else SUBJECTS[scene.subject].usual[0]
    # Unnamed, a subject has its first usual colour: one of several would come out as their mean.
    if rng.random() < (0.5 if scene.color == usual else 0.01):
        return ""
    return rng.choice(COLOR_WORDS[scene.color])


def _with_article(noun: str, rng: random.Random) -> str:
    if noun.startswith(("a ", "an ", "the ")) or rng.random() < 0.2:
        return noun
    if rng.random() < 0.08:
        return f"the {noun}"
    return f"{'an' if noun[:1] in 'aeiou' else 'a'} {noun}"


def _circumstances(scene: Scene, rng: random.Random) -> list[str]:
    """Place, time and side, some of them left out, in no fixed order."""
    parts = []
    if scene.side and rng.random() < 0.92:
        parts.append(rng.choice(SIDE_WORDS[scene.side]))
    if scene.subject != NEON and rng.random() < 0.86:
        words = PLACE_WORDS[scene.place]
        parts.append(words[0] if rng.random() < 0.3 else rng.choice(words))
    if rng.random() < (0.6 if scene.time == "day" else 0.93):
        words = TIME_WORDS[scene.time]
        parts.append(words[0] if rng.random() < 0.4 else rng.choice(words))
    if scene.subject == NEON and rng.random() < 0.6:
        parts.append(rng.choice(NEON_LIGHTS))
    if rng.random() < 0.25:
        rng.shuffle(parts)
    return parts


def _styled(body: str, style: str, rng: random.Random) -> str:
    """`body` with the words for the style before or after it; plain mostly goes without."""
    before = rng.random() < 0.4
    if rng.random() < (0.6 if style == "plain" else 0.04):
        return body
    if before:
        opening = rng.choice(STYLE_BEFORE[style])
        if opening == "a pixelated":
            body = body.removeprefix("a ").removeprefix("an ")
        return f"{opening} {body}"
    ending = rng.choice(STYLE_AFTER[style])
    return f"{body}, {ending}" if rng.random() < 0.85 else f"{ending}, {body}"
