"""The enhancer "table": adds a style and details from a small table, without a language model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from imagine_core import Enhancement, Enhancer, EnhanceTask, hookimpl

FILLERS = frozenset({"a", "an", "and", "at", "by", "from", "in", "of", "on", "the", "to", "with"})
"""Words that do not describe a picture."""


def phrases(text: str) -> tuple[str, ...]:
    """The phrases of a row."""
    return tuple(text.split(" | "))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Phrases about one aspect of a picture.

    Attributes:
        adds: Phrases, one of which is added.
        said_by: Further words that show that a prompt covers this aspect.
        avoids: Phrases for the negative prompt.
    """

    adds: tuple[str, ...]
    said_by: str
    avoids: tuple[str, ...] = ()

    @property
    def words(self) -> frozenset[str]:
        """All words that show that a prompt covers this aspect."""
        return words_of(" ".join([*self.adds, self.said_by]))


def row(adds: str, said_by: str, *, avoids: str = "") -> Row:
    """A row of the table."""
    return Row(adds=phrases(adds), said_by=said_by, avoids=phrases(avoids) if avoids else ())


STYLES = (
    row(
        "photograph | film photograph",
        "photo photography photographic photorealistic realistic dslr polaroid selfie cinematic",
        avoids="cartoon | drawing | painting | render",
    ),
    row(
        "watercolor painting | watercolor on paper",
        "watercolour aquarelle gouache",
        avoids="photo | harsh outlines | render",
    ),
    row(
        "oil painting | oil on canvas",
        "acrylic impressionist impressionism baroque fresco",
        avoids="photo | flat colors | render",
    ),
    row(
        "pencil drawing | charcoal sketch",
        "ink lineart etching engraving drawn sketched doodle",
        avoids="photo | garish colors | render",
    ),
    row(
        "storybook illustration | flat vector illustration",
        "cartoon comic poster sticker logo icon",
        avoids="photo | grainy",
    ),
    row("anime artwork | anime screenshot", "manga chibi ghibli", avoids="photo | render"),
    row(
        "3d render | isometric render",
        "cgi clay lowpoly voxel octane blender",
        avoids="photo | flat colors | sketch",
    ),
    row("pixel art", "8bit 16bit bit pixelated sprite retro", avoids="photo | gradient"),
)
"""The styles, of which a picture has one."""

DETAILS = (
    row(
        "soft morning light | warm golden hour | gentle overcast daylight | dramatic rim lighting "
        "| blue light of dusk",
        "sunset sunrise dawn sunny sunlight sunlit night moonlight moonlit neon noon evening lit "
        "afternoon dark shadow backlit candlelight twilight foggy misty rainy stormy starry",
    ),
    row(
        "centered composition | wide view | close view | seen from below | rule of thirds",
        "closeup portrait macro panorama panoramic angle aerial overhead shot framing background "
        "foreground symmetrical symmetry landscape profile distance horizon bokeh",
    ),
    row(
        "harmonious muted colors | vivid complementary colors | pastel palette | earthy tones",
        "colour color colorful colourful monochrome black white red orange yellow green blue "
        "purple violet pink brown grey gray golden silver sepia",
    ),
    row(
        "calm mood | playful mood | mysterious atmosphere | cheerful atmosphere",
        "happy sad scary eerie epic peaceful serene cozy cosy dreamy gloomy melancholic moody "
        "romantic funny cute angry dystopian tranquil lonely joyful ominous whimsical",
    ),
    row(
        "intricate details | finely detailed | rich textures | crisp and clean",
        "highly masterpiece simple minimal minimalist minimalistic sharp hd 4k 8k uhd textured "
        "quality",
    ),
)
"""Aspects of a picture that go with any style."""

FAULTS = phrases(
    "blurry | low quality | deformed | bad anatomy | cropped | watermark | text | jpeg artifacts"
)
"""Phrases for every negative prompt, unless the prompt asks for them."""


class Table(Enhancer):
    """Adds a phrase for each aspect of the picture that the prompt leaves open.

    A prompt covers an aspect if it holds any word of that row.
    """

    name = "table"
    label = "Table of styles"
    priority = 0

    async def enhance(self, task: EnhanceTask) -> AsyncIterator[str | Enhancement]:
        """The prompt with its additions."""
        given = task.prompt.strip()
        start = given.rstrip(",.; ") or given
        prompt = ", ".join([start, *additions(given, task.seed)])
        yield Enhancement(prompt=prompt, negative_prompt=", ".join(faults(prompt)))


def additions(prompt: str, seed: int) -> Iterator[str]:
    """The phrases to add to `prompt`, a style first."""
    said = words_of(prompt)
    sides = [side.adds for side in DETAILS if not said & side.words]
    if style_of(said) is None:
        sides.insert(0, tuple(phrase for each in STYLES for phrase in each.adds))
    for choices in sides:
        phrase = _pick(choices, prompt, seed)
        if not said & words_of(phrase):
            said |= words_of(phrase)
            yield phrase


def faults(prompt: str) -> Iterator[str]:
    """The phrases of the negative prompt, without those that `prompt` asks for."""
    said = words_of(prompt)
    style = style_of(said)
    for phrase in (*FAULTS, *(style.avoids if style else ())):
        if not said & words_of(phrase):
            yield phrase


def style_of(said: frozenset[str]) -> Row | None:
    """The style that shares the most words with `said`; None if no style shares any."""
    style = max(STYLES, key=lambda style: len(said & style.words))
    return style if said & style.words else None


def words_of(text: str) -> frozenset[str]:
    """The descriptive words of `text`, in lower case and singular."""
    words = re.findall(r"\w+", text.casefold())
    return frozenset(word.removesuffix("s") for word in words) - FILLERS


def _pick(choices: tuple[str, ...], prompt: str, seed: int) -> str:
    """One of `choices`, pseudo-random, and equal for equal prompt and seed on every machine."""

    def lot(phrase: str) -> bytes:
        return hashlib.sha256(f"{seed}\n{prompt}\n{phrase}".encode()).digest()

    return min(choices, key=lot)


@hookimpl
def register_enhancers(register: Callable[[Enhancer], None]) -> None:
    """Register the table."""
    register(Table())
