"""What a model brings along: a client's word comes first, then the model's, and prompts as they stand get no talk."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from canonical.messages import Message, Text
from canonical.own import NOTHING, Own, applied, laid_over, over
from canonical.requests import Generate, LoadOptions, Origin, Prompt, Sampling


def turn(role: str, text: str) -> Message:
    return Message(role, (Text(text),))  # type: ignore[arg-type]


PIRATE = Own(
    system="You are a pirate.",
    messages=(turn("user", "hi"), turn("assistant", "Ahoy!")),
    sampling=Sampling(temperature=0.3, stop=("<end>",), max_tokens=9),
    load=LoadOptions(context=2048, threads=2),
)
ASKED = turn("user", "Where is the treasure?")


def texts(request: Generate) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in request.messages]


def test_what_the_client_leaves_open_is_as_the_model_has_it() -> None:
    given = applied(Generate(model="m", messages=(ASKED,), sampling=Sampling(temperature=1.0, seed=1)), PIRATE)
    assert texts(given) == [
        ("system", "You are a pirate."),
        ("user", "hi"),
        ("assistant", "Ahoy!"),
        ("user", "Where is the treasure?"),
    ]
    assert given.sampling == Sampling(temperature=1.0, seed=1, stop=("<end>",), max_tokens=9)
    assert given.load == LoadOptions(context=2048, threads=2)


def test_a_clients_instructions_and_stop_list_replace_the_models() -> None:
    request = Generate(model="m", messages=(turn("system", "Be brief."), ASKED), sampling=Sampling(stop=("#",)))
    given = applied(request, PIRATE)
    assert texts(given)[:3] == [("system", "Be brief."), ("user", "hi"), ("assistant", "Ahoy!")]
    assert ("system", "You are a pirate.") not in texts(given)
    assert given.sampling.stop == ("#",)


def test_a_prompt_as_it_stands_gets_no_talk() -> None:
    given = applied(Generate(model="m", prompt=Prompt(text="Once")), PIRATE)
    assert given.messages == ()
    assert given.sampling.stop == ("<end>",)


def test_messages_that_are_no_longer_the_clients_do_not_travel_as_they_came() -> None:
    origin = Origin(dialect="openai", verbatim=True)
    assert not applied(Generate(model="m", messages=(ASKED,), origin=origin), PIRATE).origin.verbatim
    only_sampling = Own(sampling=Sampling(top_k=1))
    assert applied(Generate(model="m", messages=(ASKED,), origin=origin), only_sampling).origin.verbatim


def test_nothing_changes_nothing() -> None:
    request = Generate(model="m", messages=(ASKED,), sampling=Sampling(temperature=0.0))
    assert applied(request, NOTHING) == request
    assert not NOTHING
    assert PIRATE
    assert laid_over(NOTHING, PIRATE) is PIRATE
    assert laid_over(PIRATE, NOTHING) is PIRATE


def test_of_two_parts_the_upper_wins_field_by_field() -> None:
    both = laid_over(Own(sampling=Sampling(temperature=0.0), load=LoadOptions(context=512)), PIRATE)
    assert both.system == PIRATE.system
    assert both.sampling == Sampling(temperature=0.0, stop=("<end>",), max_tokens=9)
    assert both.load == LoadOptions(context=512, threads=2)


numbers = st.none() | st.integers(0, 3)


@given(said=st.tuples(numbers, numbers, numbers), own=st.tuples(numbers, numbers, numbers))
def test_each_value_is_the_clients_or_else_the_models(said: tuple, own: tuple) -> None:
    names = ("context", "threads", "gpu_layers")
    found = over(LoadOptions(**dict(zip(names, said, strict=True))), LoadOptions(**dict(zip(names, own, strict=True))))
    for name, one, other in zip(names, said, own, strict=True):
        assert getattr(found, name) == (other if one is None else one)
