"""The words by which captions name places, times, styles, sizes and all the rest."""


def _either(text: str) -> tuple[str, ...]:
    return tuple(text.split(" | "))


PLACE_WORDS: dict[str, tuple[str, ...]] = {
    "meadow": _either(
        "on a meadow | in a meadow | on the grass | in a field | in a green field | on a lawn | "
        "in the park | meadow | grassland | in the countryside"
    ),
    "sea": _either(
        "by the sea | at the sea | on the beach | at the beach | by the ocean | on the water | at "
        "the seaside | sea | ocean | beach | on the sea"
    ),
    "desert": _either(
        "in the desert | in a desert | desert | on sand dunes | in the sand | in the sahara | "
        "among dunes"
    ),
    "mars": _either(
        "on mars | on planet mars | on the red planet | mars | on the planet mars | on another "
        "planet"
    ),
    "snow": _either(
        "in the snow | in snow | snow | in winter | on a snowy field | winter landscape | snowy | "
        "in the arctic"
    ),
    "city": _either(
        "in a city | in the city | city | on a street | in town | downtown | in the streets | in "
        "front of a skyline | urban street"
    ),
    "mountains": _either(
        "in the mountains | mountains | in front of mountains | in the alps | near a mountain | "
        "by the mountains | with mountains in the background"
    ),
    "forest": _either(
        "in a forest | in the forest | forest | in the woods | among trees | in a wood | in the "
        "jungle"
    ),
}
SCENERY: dict[str, tuple[str, ...]] = {
    "meadow": _either(
        "a meadow | a green meadow | a grassy field | green hills | a field of flowers"
    ),
    "sea": _either(
        "the sea | the ocean | a calm sea | the open sea | a seascape | waves on the sea"
    ),
    "desert": _either("a desert | the desert | sand dunes | a desert landscape"),
    "mars": _either(
        "mars | the surface of mars | planet mars | a landscape on mars | the red planet"
    ),
    "snow": _either("a snowy landscape | snow | a winter landscape | a snowy field | winter"),
    "city": _either("a city | a city skyline | a city street | a town | the city | skyline"),
    "mountains": _either(
        "mountains | a mountain landscape | snowy mountains | the alps | a mountain range"
    ),
    "forest": _either("a forest | the forest | a pine forest | the woods | a deep forest"),
}
TIME_WORDS: dict[str, tuple[str, ...]] = {
    "day": _either(
        "at day | in daylight | sunny | on a sunny day | by day | during the day | at noon | in "
        "the morning | daytime | blue sky | bright sunny day"
    ),
    "night": _either(
        "at night | night | by night | under the stars | in the moonlight | starry night | at "
        "midnight | under a starry sky | night sky | in the dark | full moon"
    ),
    "sunset": _either(
        "at sunset | sunset | at dusk | at dawn | in the evening | at sunrise | during sunset | "
        "in the evening light | golden hour | dusk"
    ),
}
STYLE_BEFORE: dict[str, tuple[str, ...]] = {
    "plain": _either(
        "a photo of | a picture of | an illustration of | an image of | photo of | picture of | a "
        "storybook illustration of | a cartoon of | a portrait of | a painting of"
    ),
    "watercolor": _either(
        "watercolor painting of | a watercolor painting of | a watercolor of | watercolor of | "
        "watercolour painting of | an aquarelle of"
    ),
    "pixel art": _either(
        "pixel art of | a pixel art picture of | 8-bit pixel art of | 8 bit art of | a pixelated "
        "| pixel art,"
    ),
    "sketch": _either(
        "a sketch of | pencil sketch of | a pencil drawing of | a pencil sketch of | sketch of | "
        "a hand drawn sketch of"
    ),
}
STYLE_AFTER: dict[str, tuple[str, ...]] = {
    "plain": _either(
        "storybook illustration | illustration | cartoon | flat illustration | photo | digital "
        "art | vector art | photograph"
    ),
    "watercolor": _either(
        "watercolor painting | watercolor | in watercolor | watercolour | aquarelle | in the "
        "style of a watercolor | in watercolor style | watercolor style | painted in watercolor"
    ),
    "pixel art": _either(
        "pixel art | in pixel art style | 8-bit pixel art | pixel art style | 8 bit | 8-bit | in "
        "the style of pixel art | retro game pixel art | pixelated"
    ),
    "sketch": _either(
        "sketch | pencil sketch | pencil drawing | in the style of a sketch | sketched | line art "
        "| hand drawn sketch | as a sketch | sketch style"
    ),
}
SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "tiny": _either("tiny | very small | minuscule"),
    "small": _either("small | little"),
    "medium": (),
    "big": _either("big | large"),
    "huge": _either("huge | giant | gigantic | enormous | very big"),
}
SIDE_WORDS: dict[str, tuple[str, ...]] = {
    "left": _either("on the left | on the left side | at the left | left"),
    "right": _either("on the right | on the right side | at the right | right"),
    "centre": _either("in the centre | in the middle | in the center | centered"),
}
COLOR_WORDS: dict[str, tuple[str, ...]] = {
    "red": _either("red | red | crimson | scarlet"),
    "orange": _either("orange"),
    "yellow": _either("yellow | yellow | golden"),
    "green": _either("green"),
    "blue": _either("blue"),
    "purple": _either("purple | purple | violet"),
    "pink": _either("pink"),
    "white": _either("white"),
    "black": _either("black"),
    "brown": _either("brown"),
    "gray": _either("gray | grey | gray | silver"),
}
HAT_WORDS = _either(
    "with a tiny hat | with a hat | wearing a hat | with a top hat | wearing a tiny hat | wearing "
    "a top hat | in a hat | with a small hat"
)
RIDER_WORDS = _either(
    "an astronaut riding a {} | astronaut riding a {} | an astronaut on a {} | a spaceman riding "
    "a {} | an astronaut rides a {} | a {} ridden by an astronaut"
)
NEON_WORDS = _either(
    "a futuristic city | a futuristic city | a city with neon lights | a neon city | a cyberpunk "
    "city | a science fiction city | a futuristic skyline | futuristic city | a city of the "
    "future"
)
NEON_LIGHTS = _either("neon lights | with neon lights | glowing neon lights | neon")
# Words that say nothing alone: the first lead to another word, the second need the neighbour that
# they have in the phrases above ("full moon" is a time, the "full" of "full body" is none).
LINKS = _either(
    "a | an | among | as | at | by | during | in | near | of | on | the | under | very | with"
)
COMPANIONS = _either(
    "air | another | art | bit | bright | calm | camping | deep | digital | drawn | flat | "
    "full | game | hand | hot | hour | light | line | open | range | retro | side | top | vector"
)
