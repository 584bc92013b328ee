"""Tags of adapters are read out of prompts as A1111 reads them."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagine_core.errors import RequestError
from imagine_core.lora_tags import LoraTag, read_tags, tag_of
from imagine_core.types import LoraUse


@pytest.mark.parametrize(
    ("prompt", "text", "tags"),
    [
        ("a cat", "a cat", []),
        ("a cat <lora:ink>", "a cat ", [LoraTag(name="ink")]),
        ("<lora:ink:0.8>a cat", "a cat", [LoraTag(name="ink", weight=0.8, text_weight=0.8)]),
        ("a<lora:ink:0.6:0.8>b", "ab", [LoraTag(name="ink", weight=0.8, text_weight=0.6)]),
        ("<lora:ink:-1>", "", [LoraTag(name="ink", weight=-1, text_weight=-1)]),
        ("<lora:ink:0>", "", [LoraTag(name="ink", weight=0, text_weight=0)]),
        ("<lora:ink:.5>", "", [LoraTag(name="ink", weight=0.5, text_weight=0.5)]),
        ("<lora:ink: 1e0 >", "", [LoraTag(name="ink")]),
        ("<lora:ink:te=0.5>", "", [LoraTag(name="ink", weight=0.5, text_weight=0.5)]),
        ("<lora:ink:unet=0.5>", "", [LoraTag(name="ink", weight=0.5)]),
        ("<lora:ink:1:te=0:unet=2>", "", [LoraTag(name="ink", weight=2, text_weight=0)]),
        ("<lyco:ink:1>", "", [LoraTag(name="ink")]),
        ("<lora: My Style v1.2 :1>", "", [LoraTag(name="My Style v1.2")]),
        ("<lora:style/ink:1>", "", [LoraTag(name="style/ink")]),
        ("<lora:a=b:1>", "", [LoraTag(name="a=b")]),
        (
            "<lora:a:1><lora:b:2>",
            "",
            [LoraTag(name="a"), LoraTag(name="b", weight=2, text_weight=2)],
        ),
        ("<lora:a:1> <lora:a:1>", " ", [LoraTag(name="a")] * 2),
        ("(<lora:ink:1>:1.2) BREAK x", "(:1.2) BREAK x", [LoraTag(name="ink")]),
        (r"\<lora:ink:1>", "\\", [LoraTag(name="ink")]),
        ("<lora:ink:1:lbw=OUTALL>", "", [LoraTag(name="ink", blocks="OUTALL")]),
        ("<lora:ink:1:w=1,0,1>", "", [LoraTag(name="ink", blocks="1,0,1")]),
        ("<lora:ink:1:1,0,1>", "", [LoraTag(name="ink", blocks="1,0,1")]),
        ("<lora:ink:1:OUTALL>", "", [LoraTag(name="ink", blocks="OUTALL")]),
        ("<lora:ink:1:start=4:stop=120>", "", [LoraTag(name="ink", start=4, stop=120)]),
        ("<lora:ink:1:step=0.2-0.8>", "", [LoraTag(name="ink", start=0.2, stop=0.8)]),
        ("<lora:ink", "<lora:ink", []),
        ("<lora:>", "<lora:>", []),
        ("<lora>", "<lora>", []),
        ("a < b > c <3 : >", "a < b > c <3 : >", []),
        ("", "", []),
    ],
)
def test_tags_become_uses_and_leave_the_prompt(prompt: str, text: str, tags: list[LoraTag]) -> None:
    found = read_tags(prompt)
    assert found.prompt == text
    assert list(found.loras) == tags
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        ("<lora:ink:much>", "'much' is no number"),
        ("<lora:ink:0,8>", "'0,8' is no number"),
        ("<lora:ink:nan>", "'nan' is no number"),
        ("<lora:ink:inf>", "is no number from -100 to 100"),
        ("<lora:ink:1e9>", "is no number from -100 to 100"),
        ("<lora:ink:>", "'' is no number"),
        ("<lora:ink:1:te=x>", "'x' is no number"),
        ("<lora:ink:1:start=-1>", "is no number from 0 to 10000"),
        ("<lora::1>", "it has no name"),
        ("<lora: >", "it has no name"),
        ("<lora:a<lora:b:1>", "'b' is no number"),
    ],
)
def test_a_tag_that_cannot_be_meant_so_is_refused(prompt: str, problem: str) -> None:
    with pytest.raises(RequestError, match=problem) as error:
        read_tags(f"a cat {prompt}")
    assert error.value.fields[0].field == "prompt"


@pytest.mark.parametrize(
    ("prompt", "text", "warning"),
    [
        ("a <hypernet:x:1> b", "a  b", "<hypernet:x:1> left out of the prompt"),
        ("<LoRA:x:1>", "", "<LoRA:x:1> left out of the prompt: only <lora:name:weight> is read"),
        ("<lora:x:1:1:4>", "", "'4' in <lora:x:1:1:4> is not read"),
        ("<lora:x:1:dyn=4>", "", "'dyn=4' in <lora:x:1:dyn=4> is not read"),
        ("<lora:x:1:step=4>", "", "'step=4'"),
        ("<lora:x:1:lbwe=ATTN>", "", "'lbwe=ATTN'"),
    ],
)
def test_what_is_not_read_is_told(prompt: str, text: str, warning: str) -> None:
    found = read_tags(prompt)
    assert found.prompt == text
    assert len(found.warnings) == 1
    assert warning in found.warnings[0]


@given(st.text(alphabet="<>:=,-. loraync0123te\\()\n", max_size=60))
def test_any_text_is_read_or_refused(prompt: str) -> None:
    try:
        found = read_tags(prompt)
    except RequestError:
        return
    assert len(found.prompt) <= len(prompt)
    assert read_tags(found.prompt.replace("<", "")).loras == ()


@pytest.mark.parametrize("piece", ["<a:", "<lora:x:1", "<", ">", "<a", "<lora:x>"])
def test_long_prompts_take_linear_time(piece: str) -> None:
    start = time.perf_counter()
    read_tags(piece * 30_000)
    assert time.perf_counter() - start < 2


@given(
    st.builds(
        LoraUse,
        name=st.text(alphabet="abc é-_.", min_size=1).map(str.strip).filter(bool),
        weight=st.floats(-100, 100),
        text_weight=st.none() | st.sampled_from([100.5, -200.0]).map(lambda w: w / 2),
        start=st.sampled_from([0.0, 0.125, 2 / 3]),
        end=st.sampled_from([1.0, 0.5, 2 / 3, 0.0]),
        blocks=st.none() | st.sampled_from(["MIDD", "1,0,0.5"]),
    ),
    st.integers(1, 100),
)
def test_a_use_is_written_as_a_tag_and_read_back(use: LoraUse, steps: int) -> None:
    (tag,) = read_tags(tag_of(use)).loras
    same = use.text_weight == use.weight  # which says no more than None
    assert tag.use(steps) == (replace(use, text_weight=None) if same else use)


@pytest.mark.parametrize(
    ("tag", "start", "end"),
    [
        ("<lora:ink:1:start=5:stop=15>", 0.25, 0.75),
        ("<lora:ink:1:start=0.5>", 0.5, 1.0),
        ("<lora:ink:1:start=30>", 1.0, 1.0),
        ("<lora:ink:1:stop=1>", 0.0, 0.05),
    ],
)
def test_numbers_of_steps_become_parts_of_them(tag: str, start: float, end: float) -> None:
    use = read_tags(tag).loras[0].use(20)
    assert (use.start, use.end) == (start, end)


def test_a_lora_that_never_acts_is_written_so_that_it_does_not() -> None:
    use = LoraUse(name="ink", start=1.0)
    (tag,) = read_tags(tag_of(use)).loras
    assert tag.use(10_000).start > 0.9999
