"""French: every text that the program tells people has one, holes and all, and programs read the same in every language."""

from __future__ import annotations

import re

import pytest

from hikube_local import language
from tests import messages

FRENCH = language.messages("fr")
TOLD = messages.told()
HOLE = re.compile(r"\{(\d+)\}")
# Of one word, so not looked for in the code: marks, headings, what becomes of an object; and click's own two.
WORDS = {key for key in FRENCH if key not in TOLD}


@pytest.fixture
def french():
    language.use("fr")
    yield language.tr
    language.use("")


def test_no_message_lacks_its_french():
    """`python -m tests.messages` lists them; a command, a name or a form that scripts rely on has itself."""
    assert [f"{where}: {text}" for text, where in TOLD.items() if text not in FRENCH] == []


def test_nothing_is_translated_that_is_no_longer_said():
    bare = {key: re.findall(r"[A-Za-z]{3,}", HOLE.sub(" ", key)) for key in WORDS}
    clicks = {"Show this message and exit.", "Show the version and exit."}
    assert {key for key, words in bare.items() if len(words) > 1} - clicks == set()


def test_both_have_the_same_holes():
    for key, value in FRENCH.items():
        assert sorted(set(HOLE.findall(key))) == sorted(set(HOLE.findall(value))), key
        assert key.count("`") == value.count("`") or "`" not in key, key


def test_each_text_is_found_again_with_what_is_put_in(french):
    """Filled with names, each is told in French with those names, not as another text that begins alike."""
    wrong = []
    for key, value in FRENCH.items():
        names = {n: f"n{n}x" for n in HOLE.findall(key)}

        def filled(text: str, names: dict[str, str] = names) -> str:
            return HOLE.sub(lambda m: names[m[1]], text).replace("{{", "{").replace("}}", "}")

        if key != value and HOLE.search(key) and (found := french(filled(key))).strip() != filled(value).strip():
            wrong.append((filled(key), found, filled(value)))
    assert wrong == []


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
