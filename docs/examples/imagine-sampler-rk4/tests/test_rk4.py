"""The sampler against the rules of all, and against the fake model, whose picture is known."""

import imagine_sampler_rk4
import numpy as np

from imagine_core import GenerationRequest
from imagine_core.testing import FakeModel, build_test_engine, check_sampler, draw_one


def test_rk4_does_what_samplers_do():
    """The suite that every sampler passes; of fourth order, measured."""
    check_sampler(imagine_sampler_rk4, "rk4", order=4)


def test_rk4_draws_the_picture_that_the_prompt_asks_for(tmp_path):
    """The mean of the picture is the prompt's colour."""
    engine = build_test_engine(tmp_path)
    request = GenerationRequest(prompt="red", sampler="rk4", steps=10, guidance_scale=1, seed=1)
    picture = np.asarray(draw_one(engine, request).images[0].image)
    engine.close()
    wanted = (np.array(FakeModel.colour("red")[:3]) + 1) * 127.5
    assert abs(picture.mean(axis=(0, 1)) - wanted).max() < 3
