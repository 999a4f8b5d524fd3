"""Which model translates what: a direct one before two by way of a third language, always the same, and none that is broken."""

from __future__ import annotations

from canonical.models import Capability, ModelInfo
from gateway.translating import LOOKED, SAMPLE, Hop, sample, ways


def model(id: str, *pairs: str, trouble: str = "") -> ModelInfo:
    told = tuple((pair.split(">")[0], pair.split(">")[1]) for pair in pairs)
    return ModelInfo(id=id, capabilities=frozenset({Capability.TRANSLATE}), pairs=told, trouble=trouble)


def test_a_direct_model_comes_before_two():
    found = ways([model("a", "fr>en"), model("b", "en>de"), model("c", "fr>de")])
    assert found.find("fr", "de") == (Hop("fr", "de", "c"),)


def test_two_models_go_by_way_of_a_third_language_of_english_where_they_can():
    rows = [model("a", "fr>ca"), model("b", "ca>de"), model("c", "fr>en"), model("d", "en>de")]
    for order in (rows, rows[::-1]):
        assert ways(order).find("fr", "de") == (Hop("fr", "en", "c"), Hop("en", "de", "d"))
    assert ways(rows[:2]).find("fr", "de") == (Hop("fr", "ca", "a"), Hop("ca", "de", "b"))


def test_three_models_are_one_too_many():
    assert ways([model("a", "fr>en"), model("b", "en>de"), model("c", "de>pl")]).find("fr", "pl") == ()


def test_of_several_models_the_one_with_fewest_pairs_knows_a_pair_best():
    rows = [model("many", "en>fr", "en>it"), model("one", "en>fr"), model("other", "en>fr")]
    assert ways(rows).find("en", "fr") == (Hop("en", "fr", "one"),)


def test_one_model_may_go_both_halves():
    rows = [model("many", "fr>en", "en>de")]
    assert ways(rows).find("fr", "de") == (Hop("fr", "en", "many"), Hop("en", "de", "many"))


def test_what_each_language_is_translated_into_and_by_way_of_which():
    found = ways([model("a", "fr>en"), model("b", "en>de", "en>fr"), model("c", "fr>ca"), model("d", "ca>de", "ca>it")])
    assert found.codes == ("ca", "de", "en", "fr", "it")
    assert found.sources == ("ca", "en", "fr")
    assert found.ends("fr") == {"en": "", "ca": "", "de": "en", "it": "ca"}
    assert found.ends("en") == {"de": "", "fr": "", "ca": "fr"}
    assert found.ends("de") == {}


def test_a_model_that_cannot_be_loaded_is_no_way_unless_one_looks_for_the_reason():
    rows = [model("broken", "en>fr", trouble="it is a pickle")]
    assert ways(rows).find("en", "fr") == ()
    assert ways(rows, broken=True).direct["en", "fr"].trouble == "it is a pickle"
    whole = model("whole", "en>fr", "en>de")
    assert ways([*rows, whole], broken=True).find("en", "fr") == (Hop("en", "fr", "whole"),)


def test_a_language_is_told_by_the_first_letters_and_nobody_looks_through_millions_of_digits_for_them():
    assert sample(["1", "a" * SAMPLE, "b"]) == ["a" * SAMPLE]
    assert sample(["1", "aa", "-", "bb" * SAMPLE]) == ["aa", "b" * (SAMPLE - 2)]
    assert sample(["1" * LOOKED, "a"]) == []
    assert sample(["1"] * LOOKED + ["a"]) == []
