"""Other languages: every text that the program tells people has its French, holes and all; German and Italian have no text wrong."""

from __future__ import annotations

import re

import pytest

from hikube_local import language
from tests import messages

FRENCH = language.messages("fr")
TOLD = messages.told()
HOLE = re.compile(r"\{(\d+)\}")
PUT = re.compile(r"\{(\d+)[|}]")  # in a translation, maybe with what stands for the English s
OTHERS = [which for which in language.LANGUAGES if which != "en"]
# Of one word, so not looked for in the code: marks, headings, what becomes of an object; and click's own two.
WORDS = {key for key in FRENCH if key not in TOLD}


@pytest.fixture
def spoken():
    """Speak a language: hands back what translates."""

    def speak(which: str):
        language.use(which)
        return language.tr

    yield speak
    language.use("")


@pytest.fixture
def french(spoken):
    return spoken("fr")


def test_no_message_lacks_its_french():
    """`python -m tests.messages` lists them; a command, a name or a form that scripts rely on has itself."""
    assert [f"{where}: {text}" for text, where in TOLD.items() if text not in FRENCH] == []


def test_nothing_is_translated_that_is_no_longer_said():
    bare = {key: re.findall(r"[A-Za-z]{3,}", HOLE.sub(" ", key)) for key in WORDS}
    clicks = {"Show this message and exit.", "Show the version and exit."}
    assert {key for key, words in bare.items() if len(words) > 1} - clicks == set()


@pytest.mark.parametrize("which", [which for which in OTHERS if which != "fr"])
def test_other_languages_translate_what_french_does(which: str):
    """Nothing that nobody says any more; what is new may lack."""
    assert {*language.messages(which)} - {*FRENCH} == set()
    assert len(language.messages(which)) > 1500


@pytest.mark.parametrize("which", OTHERS)
def test_both_have_the_same_holes(which: str):
    for key, value in language.messages(which).items():
        assert sorted(set(HOLE.findall(key))) == sorted(set(PUT.findall(value))), key
        assert key.count("`") == value.count("`") or "`" not in key, key


@pytest.mark.parametrize("which", OTHERS)
def test_each_text_is_found_again_with_what_is_put_in(spoken, which: str):
    """Filled with names, each is told in the language with those names, not as another text that begins alike."""
    wrong, translated = [], spoken(which)
    for key, value in language.messages(which).items():
        names = {n: f"n{n}x" for n in HOLE.findall(key)}
        said, wanted = (language.filled(text, names) for text in (key, value))
        if key != value and names and (found := translated(said)).strip() != wanted.strip():
            wrong.append((said, found, wanted))
    assert wrong == []


@pytest.mark.parametrize(
    ("which", "one", "two"),
    [
        ("fr", "1 objet valable", "2 objets valables"),
        ("de", "1 Objekt gültig", "2 Objekte gültig"),
        ("it", "1 oggetto valido", "2 oggetti validi"),
    ],
)
def test_one_and_many(spoken, which: str, one: str, two: str):
    assert [spoken(which)(f"{words} valid") for words in ("1 object", "2 objects")] == [one, two]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ready after 75 s: cloud-init is done", "prête après 75 s : cloud-init a terminé"),
        ("its disk data is missing: there is no image gold", "son disque data manque : il n'y a pas d'image gold"),
        ("waits for its disk a: b, then run up again", "attend son disque a : b, puis relancez up"),
        ("  log in: hikube-local ssh web", "  connexion : hikube-local ssh web"),
        ("a guest's own words: nothing of ours", "a guest's own words: nothing of ours"),
        ("hikube-local restart network, or up --restart", "hikube-local restart network, ou up --restart"),
        (
            "Remove the machines web, network (their disks stay)?",
            "Retirer les machines web, network (leurs disques restent) ?",
        ),
        ("importing: from image debian-12", "importation : depuis l'image debian-12"),
        ("network: Running, no ports", "network : Running, aucun port"),
        ("{0} is missing", "{0} manque"),
        ("a\\1b {x} is missing", "a\\1b {x} manque"),
        ("", ""),
    ],
)
def test_texts_inside_of_texts(french, text: str, wanted: str):
    assert french(text) == wanted


def test_a_long_text_takes_no_longer_than_it_is():
    from tests.growth import is_linear

    language.use("fr")
    try:
        is_linear(language.tr, lambda n: "expected a:b (c), got " + ":x; (y), " * n, 2000)
        is_linear(language.tr, lambda n: " of ".join(["a"] * n), 2000)
    finally:
        language.use("")
