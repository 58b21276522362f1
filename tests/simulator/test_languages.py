"""The command line in French, German and Italian: help, errors, findings, progress; what programs read is the same in every language."""

from __future__ import annotations

import pytest

from tests.conftest import PAIR, Program


@pytest.fixture
def french(hikube: Program) -> Program:
    hikube.env = {**hikube.env, "LANG": "fr_FR.UTF-8"}
    return hikube


def test_a_first_session(french: Program):
    path = french.file("m.yaml", PAIR)
    up = french("up", "--backend", "simulator", path)
    assert up.code == 0, up.err
    for words in (
        "importé",
        "configuration du réseau du tenant",
        "prête",
        "2 objets sur 2 ont changé",
        "diffère de Hikube",
    ):
        assert words in up.err, (words, up.err)
    assert "  connexion : hikube-local ssh web" in up.out
    assert "rien n'a changé" in french("up", path).err
    lost = french("get", "vm", "nix")
    assert "erreur[HK804]: il n'y a pas de vminstance 'nix' dans l'espace de noms default" in lost.err
    assert "remède: hikube-local get -A liste ce qui existe" in lost.err
    shown = french("describe", "vm", "web").out
    assert "Différences avec Hikube :" in shown and "Boot phase:     terminé\nInstance type:  u1.medium\n" in shown
    assert "configuration du réseau du tenant" in french("events").out
    wrong = french("validate", french.file("w.yaml", PAIR.replace("u1.medium", "u1.huge")))
    assert "erreur[HK302]: instanceType inconnu : 'u1.huge'" in wrong.out and "vouliez-vous dire" in wrong.out
    assert "cet hôte" in french("doctor").out


def test_names_are_never_translated(french: Program):
    """Also where they are words of ours, as `ready` and `network` are."""
    text = PAIR.replace("name: web", "name: ready").replace("name: sys", "name: network").replace("- sys", "- network")
    assert french("up", "--backend", "simulator", french.file("m.yaml", text)).code == 0
    shown = french("describe", "vm,vmdisk").out
    assert "Name:           ready\n" in shown and "Name:           network\n" in shown and "1. network " in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("get --bogus", "Erreur : Il n'y a pas d'option '--bogus'."),
        ("ssh", "Erreur : Il manque l'argument '[USER@]NAME'."),
        ("wait", "Erreur : Il manque l'option '--for'."),
        ("frobnicate", "Erreur : Il n'y a pas de commande 'frobnicate'. `hikube-local help` liste les commandes."),
        ("gett", "Erreur : Il n'y a pas de commande 'gett'. Vouliez-vous dire 'get' ?"),
        ("up --timeout", "Erreur : L'option '--timeout' demande une valeur."),
        ("up --timeout soon", "Erreur : Valeur invalide pour '--timeout' : 'soon' n'est pas une durée"),
        ("get --color odd", "'odd' n'est pas l'un de 'auto', 'always', 'never'."),
        ("test --timeout-factor 0", "0.0 n'est pas dans l'intervalle 0<x<=1000."),
        ("init a b c", "Erreur : Arguments de trop : b c"),
    ],
)
def test_words_that_are_not_understood(french: Program, words: str, said: str):
    """click's own errors; in English they are click's, to the letter."""
    done = french(*words.split())
    assert done.code == 2 and said in done.err, done.err
    assert not {"Try", "Error:", "Invalid", "such"} & set(done.err.split()), done.err


def test_help_is_french_but_for_what_is_typed(french: Program):
    told = french("up", "--help").out
    for words in (
        "Usage : hikube-local up",
        "Attendre que les machines soient prêtes.",
        "Exemples :",
        "hikube-local up vm.yaml",
    ):
        assert words in told, words
    assert "Arrêter et retirer des machines" in french("--help").out


def test_lang_wins_and_other_languages_are_english(french: Program):
    for words in (("--lang", "en", "get", "vm", "nix"), ("get", "vm", "nix", "--lang=en")):
        assert "error[HK804]: there is no" in french(*words).err
    french.env = {**french.env, "LANG": "es_ES.UTF-8"}
    assert "error[HK804]: there is no" in french("get", "vm", "nix").err
    assert "erreur[HK804]" in french("get", "vm", "nix", "--lang", "fr").err


@pytest.mark.parametrize(
    "words",
    [
        ("get", "vm,vmdisk"),
        ("get", "vm", "-o", "json"),
        ("validate", "FILE", "-o", "json"),
        ("plan", "FILE", "-o", "json"),
        ("ports",),
        ("events", "-o", "json"),
        ("stop", "web"),
        ("delete", "vm/web"),
    ],
)
def test_what_programs_read_is_the_same(hikube: Program, words: tuple[str, ...]):
    """JSON, tables of kubectl's, and the sentences that kubectl's and virtctl's users look for."""
    path = hikube.file("m.yaml", PAIR)
    given = [str(path) if w == "FILE" else w for w in words]
    told = {}
    for lang in ("C.UTF-8", "fr_FR.UTF-8"):
        assert hikube("up", "--backend", "simulator", path).code == 0
        hikube.env = {**hikube.env, "LANG": lang}
        told[lang] = hikube(*given).out
        hikube.env = {**hikube.env, "LANG": "C.UTF-8"}
        if words[0] in ("get", "events"):
            continue
    if words[0] in ("get", "events") and "json" not in words:
        told = {lang: [line.split()[:4] for line in out.splitlines()] for lang, out in told.items()}
    if words[0] == "events":
        assert "écriture" not in told["fr_FR.UTF-8"]
    elif words == ("get", "vm", "-o", "json"):
        assert "prête" not in told["fr_FR.UTF-8"] and "printableStatus" in told["fr_FR.UTF-8"]
    else:
        assert told["C.UTF-8"] == told["fr_FR.UTF-8"]


@pytest.mark.parametrize(
    ("which", "up", "lost", "wrong"),
    [
        ("de", "weicht von Hikube ab", "Fehler[HK804]", "Fehler:"),
        ("it", "diverso da Hikube", "errore[HK804]", "Errore:"),
    ],
)
def test_german_and_italian(hikube: Program, which: str, up: str, lost: str, wrong: str):
    """A session; what programs read stays as it is."""
    hikube.env = {**hikube.env, "LANG": f"{which}_CH.UTF-8"}
    path = hikube.file("m.yaml", PAIR)
    done = hikube("up", "--backend", "simulator", path)
    assert done.code == 0 and up in done.err and "of 2 objects changed" not in done.err, done.err
    assert lost in hikube("get", "vm", "nix").err
    assert wrong in hikube("get", "--bogus").err
    assert hikube("get", "vm", "web", "-o", "json").json["status"]["printableStatus"] == "Running"
    assert "On Hikube: " in hikube("explain", "vminstance.spec.externalMethod").out  # fields are described in English
