"""Languages: their codes, however somebody writes them, and their English names.

A code here is as short as BCP 47 has it: ``fr``, ``yue``, with a script or a region only where that makes another text
(``zh-Hant``, ``pt-BR``). Models write ``fra``, ``cmn_Hant`` or ``fr_CA``; clients write ``FR``, ``fr-FR`` or ``zh_TW``.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache

from msgspec import Struct

LIMIT = 35
"""Characters of a code that is looked at at all, as BCP 47 recommends."""

_TABLE = """
aa aar Afar; ab abk Abkhazian; ae ave Avestan; af afr Afrikaans; ak aka Akan; am amh Amharic; an arg Aragonese
ar ara Arabic; as asm Assamese; av ava Avaric; ay aym Aymara; az aze Azerbaijani; ba bak Bashkir; be bel Belarusian
bg bul Bulgarian; bi bis Bislama; bm bam Bambara; bn ben Bengali; bo bod/tib Tibetan; br bre Breton; bs bos Bosnian
ca cat Catalan; ce che Chechen; ch cha Chamorro; co cos Corsican; cr cre Cree; cs ces/cze Czech
cu chu Church Slavonic; cv chv Chuvash; cy cym/wel Welsh; da dan Danish; de deu/ger German; dv div Dhivehi
dz dzo Dzongkha; ee ewe Ewe; el ell/gre Greek; en eng English; eo epo Esperanto; es spa Spanish; et est Estonian
eu eus/baq Basque; fa fas/per Persian; ff ful Fulah; fi fin Finnish; fj fij Fijian; fo fao Faroese; fr fra/fre French
fy fry Western Frisian; ga gle Irish; gd gla Scottish Gaelic; gl glg Galician; gn grn Guarani; gu guj Gujarati
gv glv Manx; ha hau Hausa; he heb Hebrew; hi hin Hindi; ho hmo Hiri Motu; hr hrv Croatian; ht hat Haitian
hu hun Hungarian; hy hye/arm Armenian; hz her Herero; ia ina Interlingua; id ind Indonesian; ie ile Interlingue
ig ibo Igbo; ii iii Sichuan Yi; ik ipk Inupiaq; io ido Ido; is isl/ice Icelandic; it ita Italian; iu iku Inuktitut
ja jpn Japanese; jv jav Javanese; ka kat/geo Georgian; kg kon Kongo; ki kik Kikuyu; kj kua Kuanyama; kk kaz Kazakh
kl kal Kalaallisut; km khm Khmer; kn kan Kannada; ko kor Korean; kr kau Kanuri; ks kas Kashmiri; ku kur Kurdish
kv kom Komi; kw cor Cornish; ky kir Kyrgyz; la lat Latin; lb ltz Luxembourgish; lg lug Ganda; li lim Limburgan
ln lin Lingala; lo lao Lao; lt lit Lithuanian; lu lub Luba-Katanga; lv lav Latvian; mg mlg Malagasy
mh mah Marshallese; mi mri/mao Maori; mk mkd/mac Macedonian; ml mal Malayalam; mn mon Mongolian; mr mar Marathi
ms msa/may Malay; mt mlt Maltese; my mya/bur Burmese; na nau Nauru; nb nob Norwegian Bokmål; nd nde North Ndebele
ne nep Nepali; ng ndo Ndonga; nl nld/dut Dutch; nn nno Norwegian Nynorsk; no nor Norwegian; nr nbl South Ndebele
nv nav Navajo; ny nya Nyanja; oc oci Occitan; oj oji Ojibwa; om orm Oromo; or ori Odia; os oss Ossetian
pa pan Punjabi; pi pli Pali; pl pol Polish; ps pus Pashto; pt por Portuguese; qu que Quechua; rm roh Romansh
rn run Rundi; ro ron/rum Romanian; ru rus Russian; rw kin Kinyarwanda; sa san Sanskrit; sc srd Sardinian
sd snd Sindhi; se sme Northern Sami; sg sag Sango; sh hbs Serbo-Croatian; si sin Sinhala; sk slk/slo Slovak
sl slv Slovenian; sm smo Samoan; sn sna Shona; so som Somali; sq sqi/alb Albanian; sr srp Serbian; ss ssw Swati
st sot Southern Sotho; su sun Sundanese; sv swe Swedish; sw swa Swahili; ta tam Tamil; te tel Telugu; tg tgk Tajik
th tha Thai; ti tir Tigrinya; tk tuk Turkmen; tl tgl Tagalog; tn tsn Tswana; to ton Tongan; tr tur Turkish
ts tso Tsonga; tt tat Tatar; tw twi Twi; ty tah Tahitian; ug uig Uyghur; uk ukr Ukrainian; ur urd Urdu; uz uzb Uzbek
ve ven Venda; vi vie Vietnamese; vo vol Volapük; wa wln Walloon; wo wol Wolof; xh xho Xhosa; yi yid Yiddish
yo yor Yoruba; za zha Zhuang; zh zho/chi Chinese; zu zul Zulu
"""
"""ISO 639-1, ISO 639-3 (and what ISO 639-2 calls it in libraries), the name in English."""
_OTHER = {
    "jap": "ja", "cmn": "zh", "iw": "he", "in": "id", "ji": "yi", "mo": "ro", "tl": "tl", "pob": "pt-br", "zt": "zh-hant",
    "pb": "pt-br", "arb": "ar", "pes": "fa", "prs": "fa", "lvs": "lv", "ekk": "et", "zsm": "ms", "swh": "sw", "als": "sq",
    "npi": "ne", "ory": "or", "khk": "mn", "gaz": "om", "plt": "mg", "uzn": "uz", "azj": "az", "ydd": "yi", "kmr": "ku",
}  # fmt: skip
"""Codes that mean the same: withdrawn ones, models' own, and the member of a group that people mean by the group's name."""
_NAMES = {"zh-hans": "Chinese", "zh-hant": "Chinese (traditional)", "pt-br": "Portuguese (Brazil)", "fil": "Filipino"}
_SCRIPTS = {"zh-cn": "zh-hans", "zh-sg": "zh-hans", "zh-tw": "zh-hant", "zh-hk": "zh-hant", "zh-mo": "zh-hant"}
_FORM = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*")


class Language(Struct, frozen=True):
    """A row of the table."""

    code: str
    name: str


@cache
def _languages() -> dict[str, Language]:
    """By every code of two or three letters."""
    found: dict[str, Language] = {}
    for row in _TABLE.replace(";", "\n").strip().splitlines():
        code, three, name = row.strip().split(" ", 2)
        language = Language(code, name)
        found[code] = language
        found.update(dict.fromkeys(three.split("/"), language))
    return found


def code_of(tag: str) -> str:
    """The code of a language however it is written; empty for what has not the form of one."""
    tag = tag[: LIMIT + 1].strip().replace("_", "-").lower()
    if len(tag) > LIMIT or not _FORM.fullmatch(tag):
        return ""
    first, *rest = tag.split("-")
    first = _OTHER.get(first, first)
    known = _languages().get(first)
    tag = "-".join((first if known is None else known.code, *rest))
    tag = _SCRIPTS.get(tag, tag)
    first, *rest = tag.split("-")
    return "-".join((first, *(_cased(part) for part in rest)))


def _cased(part: str) -> str:
    """``Hant`` and ``BR``, as people write scripts and regions."""
    return part.upper() if len(part) == 2 else part.title() if len(part) == 4 and part.isalpha() else part


def name_of(code: str) -> str:
    """The name in English; of an unknown one the code itself."""
    lower = code.lower()
    if lower in _NAMES:
        return _NAMES[lower]
    first, _, rest = code.partition("-")
    known = _languages().get(first)
    if known is None:
        return code
    return f"{known.name} ({rest})" if rest else known.name


def meant(asked: str, among: Collection[str]) -> str:
    """Which of ``among`` is meant: the same, or else without its region or script, or else with the usual one; empty: none."""
    code = code_of(asked)
    while code:
        if code in among:
            return code
        near = [other for other in among if other.startswith(f"{code}-")]
        if near:
            usual = (f"{code}-Hans", f"{code}-Latn", f"{code}-{code.upper()}")
            return next((other for other in usual if other in near), min(near))
        code = code.rpartition("-")[0]
    return ""
