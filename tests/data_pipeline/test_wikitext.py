"""Wikitext as a reader has it: what carries text stays, with its numbers; markup, sources and media go."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline import wikitext
from data_pipeline.extract import EXTRACTORS
from data_pipeline.sources import mediawiki


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("'''Bold''' and ''italic'' [[town|towns]] of [[France]].", "Bold and italic towns of France."),
        ("l''''amour''' toujours", "l'amour toujours"),
        ("A{{Infobox\n| x = 1\n| y = {{nested|2}}\n}}B", "AB"),
        ("Text<ref>{{cite book|title=X}}</ref> goes<ref name=a /> on.", "Text goes on."),
        ("A [[File:x.jpg|thumb|a [[b]] c]] B [[Category:Cats]]", "A B"),
        ("A [[Datei:x.jpg|mini|a]] B [[ファイル:x.jpg|thumb|c]] C [[Категория:X]]", "A B C"),
        ("See [https://x.test the site] or [https://y.test].", "See the site or."),
        ("AT&amp;T &ndash; 5&nbsp;m", "AT&T – 5\xa0m"),
        ("<!-- hidden {{ -->Shown", "Shown"),
        ("One<br/>two", "One\ntwo"),
        ("* first\n* second\n# one\n# two\n: aside\n; term: what", "- first\n- second\n1. one\n2. two\naside\nterm: what"),
        ("__NOTOC__Text ({{Infobox|x}}) end", "Text end"),
        ("Born ({{flagicon|Iran}}; 1950) there", "Born (1950) there"),
        ("E = <math>mc^2</math>, <math>x^{{2}}</math>!", "E = $mc^2$, $x^{ {2}}$!"),
        ("10<sup>6</sup> of H<sub>2</sub>O, the 1<sup>er</sup>", "10⁶ of H₂O, the 1er"),
        ("if a < b and c > d", "if a < b and c > d"),
        ("Use <code>x[0]</code> and <nowiki>''raw''</nowiki>", "Use x[0] and ''raw''"),
        ("A <div style='x'>block</div>\n<gallery>\nx.jpg|cap\n</gallery>B", "A block\nB"),
        ("[[de:Ada]] [[zh-min-nan:X]]Text [[:Category:Cats|cats]]", "Text cats"),
        ("#weight {{nowrap|a {{small|b}}}} c", "1. weight a b c"),
    ],
)  # fmt: skip
def test_markup_becomes_text(source: str, text: str) -> None:
    assert wikitext.to_text(source) == text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{convert|93|m|ft}}", "93 metres"),
        ("{{convert|10|to|20|km}}", "10 to 20 kilometres"),
        ("{{convert|10|x|20|m}}", "10 × 20 metres"),
        ("{{convert|6|ft|2|in|cm}}", "6 feet 2 inches"),
        ("a {{convert|5|mi|km|adj=on}} run", "a 5-mile run"),
        ("{{convert|200|km2|sqmi|0|abbr=on}}", "200 km²"),
        ("{{convert|446|mm|0}} and {{cvt|3|ft}}", "446 millimetres and 3 ft"),
        ("{{convert|30|smoot}}", "30 smoot"),
        ("{{convert|2|km|mi|sp=us}}", "2 kilometers"),
        ("{{nts|1234}} {{formatnum:5678}}", "1234 5678"),
        ("près de {{tmp|2|°C}} ou {{tmp|20}}", "près de 2 °C ou 20 °C"),
        ("at {{Coord|13|19|N|169|9|W|type:event|name=X}}, in", "at 13°19′N 169°9′W, in"),
        ("at {{coord|52|31|12.5|N|13|24|18|E}}", "at 52°31′12.5″N 13°24′18″E"),
        ("at {{coord|52.52|-13.405|display=inline,title}}", "at 52.52°N 13.405°W"),
        ("Here{{coord|1|2|N|3|4|E|display=title}}.", "Here."),
        ("of {{Pop density|3645257|640081.87|km2|sqmi|prec=1}} in", "of 5.7/km² in"),
        ("of {{pop density|1,000,000|0|km2}} or {{pop density|9000|3|sqmi}}", "of or 3,000/sq mi"),
        ("than {{currency|13&nbsp;billion|USD}} or {{currency|5|CHF}}", "than US$13\xa0billion or CHF 5"),
        ("{{OldStyleDate|February 2|1905|January 20}} – 1982", "February 2 [O.S. January 20] 1905 – 1982"),
        ("on {{bibleref|Mark|3:25|9}}, {{bibleverse|1|John|4:8|KJV}}", "on Mark 3:25, 1 John 4:8"),
        ("God ({{cite quran|29|46|style=nosup|expand=no}}).", "God (Quran 29:46)."),
        ("({{en langue|de|Österreich}}, {{latin|Austria}})", "(Österreich, Austria)"),
        ("fils {{souverain2|Joseph II (empereur)}} et", "fils Joseph II et"),
        ("{{script/Arabic|ﷲ}}, {{nq|افغانستان}}", "ﷲ, افغانستان"),
        ("{{Respell|MAIR|kəl}}, {{IPAslink|ʃ}}, {{IPAblink|ʃ}}", "MAIR-kəl, /ʃ/, [ʃ]"),
        ("prononcer {{MSAPI|b|ɛ|ʁ}}, piscines, écoles{{etc.}}", "prononcer [bɛʁ], piscines, écolesetc."),
        ("{{US patent|1781541}} was", "U.S. Patent 1,781,541 was"),
        ("{{val|1.23|0.05|e=5|u=kg}}", "1.23±0.05×10⁵ kg"),
        ("{{frac|1|2}} and {{frac|3|1|2}}", "1/2 and 3 1/2"),
        ("{{birth date and age|1950|1|2}}", "January 2, 1950"),
        ("{{birth date|1950|1|2|df=yes}}", "2 January 1950"),
        ("{{as of|2010|5}}, {{As of|2011|lc=on}}", "As of May 2010, as of 2011"),
        ("{{circa|1500}}", "c. 1500"),
        ("{{IPA|/p/}} {{IPA|de|bɛʁˈliːn}}", "/p/ bɛʁˈliːn"),
        ("{{lang|fr|Bonjour}} {{lang-de|Guten Tag}} {{langue|en|word}}", "Bonjour Guten Tag word"),
        ("{{lang|1=fr|2=oui}}", "oui"),
        ("{{lang-zh|s=汉字|t=漢字|p=hànzì}}", "汉字; 漢字; hànzì"),
        ("{{nihongo|Tokyo|東京|Tōkyō}}", "Tokyo (東京, Tōkyō)"),
        ("{{仮リンク|表示|en|Shown}}{{小|x}}", "表示x"),
        ("{{date|1|janvier|1950}}, {{unité|5|km|2}}, {{s|XIX|e}}", "1 janvier 1950, 5 km², XIXe siècle"),
        ("{{XXe siècle}} {{1er janvier}} {{heure|12|30}}", "XXe siècle 1er janvier 12 h 30"),
        ("{{siglo|XIX||s}} {{unidad|5|km}}", "siglo XIX 5 km"),
        ("{{Zitat|Wort}} {{Höhe|115|DE-NHN}}", "Wort 115 m"),
        ("{{US$|5 million}} {{abbr|Dr.|Doctor}} {{chem|H|2|O}}", "US$5 million Dr. H₂O"),
        ("{{quote|Words.|Author}}{{citation|title=X|last=Y}}", "Words."),
        ("{{plainlist|\n* a\n* b\n}}", "- a\n- b"),
        ("-{zh-hans:计算机; zh-hant:電腦}-和-{A}--{H|zh-cn:x;zh-tw:y}-", "计算机和A"),
        ("{{Vorlage:lang|en|yes}}", "yes"),
    ],
)
def test_a_template_that_carries_text_gives_what_a_reader_sees(source: str, text: str) -> None:
    assert wikitext.to_text(source) == text


def test_a_short_table_of_words_becomes_rows_and_others_go() -> None:
    table = '{|class="wikitable"\n|+ Caption\n! Name !! Land\n|-\n| [[A|Anna]] || style="x" | Ungarn\n|-\n| Berta || {{flag|Chile}}\n|}'
    assert (
        wikitext.to_text(f"Before\n{table}\nafter")
        == "Before\n\nName | Land\nAnna | Ungarn\nBerta | Chile\n\nafter"
    )
    figures = (
        table.replace("Anna", "1.234")
        .replace("Ungarn", "5.678")
        .replace("Berta", "9.012")
        .replace("Land", "3")
    )
    for other in (figures, table.replace("wikitable", "infobox"), table.replace('class="wikitable"', "")):
        assert wikitext.to_text(f"Before\n{other}\nafter") == "Before\n\nafter"


def test_sections_of_links_and_sources_go_with_their_subsections() -> None:
    source = (
        "Lead.\n== History ==\nLong ago.\n=== Early ===\nOlder.\n== References ==\n* Smith\n=== Books ===\n* Jones\n"
        "== Legacy ==\nStill there.\n== See also ==\n* [[Other]]"
    )
    assert wikitext.to_text(source) == "Lead.\nHistory\nLong ago.\nEarly\nOlder.\nLegacy\nStill there."
    for title in (
        "Einzelnachweise",
        "Liens externes",
        "Véase también",
        "脚注",
        "외부 링크",
        "Външни препратки",
        "參考文獻",
    ):
        assert wikitext.to_text(f"Lead.\n== {title} ==\n* Smith") == "Lead."


def test_a_heading_that_heads_nothing_any_more_goes() -> None:
    source = "Lead.\n== Gone ==\n{{Navbox}}\n== Kept ==\n=== Sub ===\nText.\n=== Empty ===\n[[File:x.jpg]]\n"
    assert wikitext.to_text(source) == "Lead.\nKept\nSub\nText."


@pytest.mark.parametrize(
    "name",
    [
        *("disambiguation", "Disambig", "hndis", "Geo disambig|x", "Human name disambiguation", "dab"),
        *("消歧义", "Begriffsklärung", "homonymie", "Desambiguación", "曖昧さ回避", "人名の曖昧さ回避", "동음이의", "пояснение"),
    ],
)  # fmt: skip
def test_a_disambiguation_page_is_no_document(name: str) -> None:
    assert EXTRACTORS["wikitext"](f"'''X''' may be:\n* [[Y]]\n{{{{{name}}}}}").reason == "disambiguation"


@pytest.mark.parametrize(
    "name", ["citation needed", "disambiguation needed", "Begriffsklärungshinweis", "voir homonymes"]
)
def test_a_note_about_like_names_makes_no_disambiguation_page(name: str) -> None:
    assert EXTRACTORS["wikitext"](f"Text {{{{{name}|x}}}}").reason == ""


BROKEN = [
    "An {{unclosed template | a = b\nnext line",
    "An {{lang|fr\nnext line",
    "A [[link that never ends\nnext line",
    "A [[File:x.jpg|thumb|caption [[inner]]\nnext line",
    "A <ref>that never ends\nnext line",
    "A <ref>one and <ref>two</ref>\nnext line",
    "A <ref name='x' group=\"y\">open, and another <ref name=z\nnext line",
    "Stray }} and ]] and </ref> here\nnext line",
    "{{a|{{b|[[c|<ref>{{d}}\nnext line",
    "{| class=wikitable\n| never closed\nnext line",
    "{{unclosed\n== Section ==\nnext line {{x}} }}",
    "<math>never closed {{\nnext line",
    "<!-- never closed [[\nnext line",
]


@pytest.mark.parametrize("source", BROKEN)
def test_broken_markup_leaves_none_of_its_signs_and_costs_one_line(source: str) -> None:
    text = wikitext.to_text(source)
    for sign in ("{{", "}}", "[[", "]]", "<ref", "</ref", "{|"):
        assert sign not in text
    assert "next line" in text


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                *"{}[]|=<>'\n*# ab-\ufdd0\ufdd1\ufdd2\ufdd3",
                "0",
                "<ref>",
                "</ref>",
                "{{",
                "}}",
                "[[",
                "]]",
                "{|",
                "\n|}",
                "&#xD800;",
                "&#0;",
                "&#xfdd0;",
                "&#xfdd1;",
                "{{lang|",
                "{{convert|",
                "<math>",
                "</math>",
                "-{",
                "}-",
                "==",
            ]
        )
    )
)
def test_no_markup_trips_the_converter_nor_passes_it(parts: list[str]) -> None:
    text = wikitext.to_text("".join(parts))
    assert "<ref>" not in text
    assert "[[" not in text


@pytest.mark.parametrize(
    "piece",
    [*("<b ", '<b a="', "<b>", "[http://a ", "[[a|", "{{lang|fr|", "{{a|[[", "[[a]]", "{{lang|fr|}}", "[[\n]]", "{|\n"),
     *("<ref>", "<!--", "<math>", "-{", "''", "(,", "{{ ", "[[a|[[b]]", "== ", "\n|}", "| class=")],
)  # fmt: skip
def test_hostile_markup_takes_time_in_proportion_to_its_length(piece: str) -> None:
    # mwparserfromhell alone takes two minutes for 20 kB of "<b ".
    start = time.process_time()
    wikitext.to_text(piece * (100_000 // len(piece)))
    assert time.process_time() - start < 10


def test_entities_beyond_unicode_are_left_out() -> None:
    text = wikitext.to_text("a &#99999999; b &#99999999999999999999; c")
    assert text.startswith("a ")
    assert text.endswith(" c")


def test_real_articles_of_nine_languages_give_text_without_markup(shared_data: Path) -> None:
    num_articles, marked = 0, []
    for path in sorted((shared_data / "wiki").glob("*.bz2")):
        articles = [record for record in mediawiki.read(path) if not record.reason]
        for record in articles[:40]:
            found = EXTRACTORS["wikitext"](record.content)
            if found.reason == "disambiguation":
                continue
            num_articles += 1
            assert len(found.text) > 40, (path.name, record.title)
            marked += [record.title for sign in ("{{", "[[", "<ref") if sign in found.text]
    assert num_articles > 70
    assert len(marked) <= 0.005 * num_articles, marked
