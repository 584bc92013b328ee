"""A prompt enhancer that puts every prompt into a season, drawn by the seed."""

from imagine_core import Enhancement, Enhancer, hookimpl

SEASONS = {
    "spring": "in spring, fresh green leaves, blossoms, morning dew",
    "summer": "in summer, bright noon sun, deep blue sky, lush grass",
    "autumn": "in autumn, golden leaves, low sun, mist over the fields",
    "winter": "in winter, snow on the ground, bare branches, pale light",
}


class Seasons(Enhancer):
    """Leaves a prompt that names a season as it is."""

    name = "seasons"
    label = "A season for every prompt"
    priority = -10  # only for those who ask for it by name

    async def enhance(self, task):
        """Yield the prompt with its season, and the other seasons as what to keep away from."""
        words = task.prompt.lower().replace(",", " ").split()
        named = [season for season in SEASONS if season in words]
        season = named[0] if named else list(SEASONS)[task.seed % len(SEASONS)]
        prompt = task.prompt if named else f"{task.prompt}, {SEASONS[season]}"
        others = ", ".join(other for other in SEASONS if other != season)
        yield Enhancement(prompt=prompt, negative_prompt=others)


@hookimpl
def register_enhancers(register):
    """Register "seasons"."""
    register(Seasons())
