"""A report is one file that asks for nothing: what is known is in it, what is text stays text, and it can be read."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from html.parser import HTMLParser
from itertools import pairwise, product
from typing import Any

import pytest
from reporting import comparison, document, episodes

from metarule.inspection import palette
from metarule.inspection.markup import VOID, Html, embedded, tag
from metarule.inspection.mathml import formula, sides
from metarule.inspection.page import comparison_page, page
from metarule.inspection.page_charts import Axis
from metarule.inspection.page_heat import LEVELS, heat_map, level_of
from metarule.inspection.page_parts import number
from metarule.inspection.page_provenance import toml
from metarule.inspection.page_summary import figures, verdict
from metarule.inspection.thinned import ceiling, thinned

EVIL = '<script>alert("1")</script><img src=x onerror=alert(1)>'
REPORT = page(document(), episodes())
COMPARED = comparison_page(comparison())


class Reader(HTMLParser):
    """What a browser reads: elements with their attributes, in order; closed as they were opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def named(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name in names]


both = pytest.mark.parametrize("text", [REPORT, COMPARED], ids=["report", "comparison"])


@both
def test_a_page_names_no_address_but_its_own_parts(text):
    for name, attributes in Reader(text).elements:
        assert name not in ("iframe", "img", "object", "embed", "form", "base")
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith(("#", "data:,"))
    assert "url(" not in text
    assert "@import" not in text
    assert not re.search(r"fetch\(|XMLHttpRequest|WebSocket|import\(", text)


@both
def test_the_policy_allows_the_script_of_the_page_and_nothing_else(text):
    policy = next(each["content"] for each in Reader(text).named("meta") if "http-equiv" in each)
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(script) == 1
    digest = b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert policy is not None
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}';" in policy


@both
def test_a_page_has_a_language_one_main_part_and_headings_in_order(text):
    read = Reader(text)
    assert read.named("html")[0]["lang"] == "en"
    assert len(read.named("main")) == len(read.named("h1")) == len(read.named("nav")) == 1
    levels = [int(name[1]) for name, _ in read.elements if re.fullmatch(r"h\d", name)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    identifiers = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    links = {(each["href"] or "")[1:] for each in read.named("a")}
    assert links <= set(identifiers)


@both
def test_every_table_has_a_caption_and_headers_with_their_scope(text):
    tables = re.findall(r"<table.*?</table>", text, re.DOTALL)
    assert tables
    for table in tables:
        assert re.search(r"<caption>.+?</caption>", table)
        assert all(each["scope"] in ("col", "row") for each in Reader(table).named("th"))
        assert len(set(re.findall(r'scope="(\w+)"', table))) == 2


@both
def test_every_embedded_number_is_json_and_belongs_to_a_figure(text):
    found = re.findall(r'<script type="application/json" id="(.*?)-numbers">(.*?)</script>', text, re.DOTALL)
    assert found
    for name, numbers in found:
        assert json.loads(numbers)
        assert f'id="{name}"' in text


def evil(value: Any) -> Any:
    """The document with every text made evil, keys apart."""
    if isinstance(value, dict):
        return {key: evil(part) for key, part in value.items()}
    if isinstance(value, list):
        return [evil(part) for part in value]
    return EVIL if isinstance(value, str) else value


def test_text_from_a_document_is_never_markup():
    made = evil(document())
    made["battery"] = [row | {"learner": EVIL, "metric": EVIL} for row in document()["battery"]]
    made["coefficients"] = {EVIL: [0.0] * 30}
    made["probes"]["curves"][0]["layers"] = {EVIL: next(iter(document()["probes"]["curves"][0]["layers"].values()))}
    made["provenance"]["versions"] = {EVIL: EVIL}
    for text in (page(made, {EVIL: {EVIL: [1.0]}}), comparison_page(evil(comparison()))):
        read = Reader(text)
        assert read.named("img") == []
        assert len([each for each in read.named("script") if each.get("type") != "application/json"]) == 1
        assert not any(key.startswith("on") for _, attributes in read.elements for key in attributes)
        assert "alert(" in text  # it is there, as text


@pytest.mark.parametrize("key", sorted(set(document()) - {"name", "run"}))
def test_a_page_can_do_without_any_one_thing(key):
    Reader(page({name: value for name, value in document().items() if name != key}, {}))


def test_a_row_of_which_only_the_card_is_known_has_a_page():
    known = {key: document()[key] for key in ("name", "equations", "terms", "locality", "nearest")}
    text = page(known | {"known_as": "Oja's rule"}, {})
    assert "Equivalent to Oja&#x27;s rule." in text
    assert "metarule inspect made --stress" in text


def test_what_is_not_computed_is_a_line_with_its_command():
    bare = {key: value for key, value in document().items() if key not in ("stress", "probes")}
    text = page(bare, episodes())
    for option in ("--stress", "--probes"):
        assert f"metarule inspect runs/made {option}" in text
    assert "Not computed yet" not in REPORT


def test_a_full_report_is_small_and_always_the_same():
    assert len(REPORT.encode()) < 300_000
    assert page(document(), episodes()) == REPORT


def test_a_run_with_hundreds_of_long_coefficients_stays_below_a_megabyte():
    many: dict[str, Any] = document() | {"coefficients": {f"c{k}": [0.001 * k] * 1000 for k in range(500)}}
    line = many["learning_curve"][0]
    many["learning_curve"] = [line | {"generation": k} for k in range(1000)]
    many["terms"] = [many["terms"][0] | {"name": f"c{k}", "normalised": 0.001 * k} for k in range(500)]
    text = page(many, episodes())
    assert len(text.encode()) < 1_000_000
    assert "24 largest of 500" in text


def test_colours_can_be_read_in_both_themes():
    found = re.findall(r"color-scheme:(light|dark);((?:--\w+:#\w{6};)+)", REPORT)
    assert {theme for theme, _ in found} == {"light", "dark"}
    for _, written in found:
        colours = dict(re.findall(r"--(\w+):(#\w{6})", written))
        for text, ground in product(("ink", "quiet", "link", "good", "bad"), ("ground", "panel", "faint")):
            assert palette.contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        for name in [name for name in colours if name.startswith("series")]:
            assert palette.contrast(colours[name], colours["ground"]) >= 3.0, name
            assert palette.contrast(colours[name], colours["panel"]) >= 3.0, name


def test_contrast_is_that_of_the_web_guidelines():
    assert palette.contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert palette.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_focus_is_seen_and_motion_can_be_refused():
    assert ":focus-visible{outline:2px" in REPORT
    assert "prefers-reduced-motion:reduce" in REPORT


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0.0338*error*pre", "0.0338 error pre"),
        ("a - (b - c)", "a − b + c"),
        ("-a*b + c", "− a b + c"),
        ("a*(b + c)**2", "a ( b + c ) 2"),
        ("post·pre - post²·weight", "post pre − post 2 weight"),
        ("1.0*pre_error", "pre error"),
        ("sqrt(Abs(a))/b", "| a | b"),
        ("tanh(a + b)", "tanh ( a + b )"),
        ("1e-07*a", "1 × 10 -7 a"),
        ("sign(-a)", "sign ( − a )"),
        ("a/(-b)", "a − b"),
    ],
)
def test_an_equation_is_printed_as_it_is_read(text, shown):
    made = formula("y", text)
    assert made is not None
    Reader(made)
    assert " ".join(re.sub(r"<[^>]*>", " ", made).split()) == f"y = {shown}"


@pytest.mark.parametrize(
    "text", ["", "a +", "__import__('os').system('x')", "[a]", "a if b else c", "f(x=1)", "a.b", "'x'"]
)
def test_what_is_no_equation_is_not_printed_and_nothing_is_run(text):
    assert formula("y", text) is None


def test_printed_equations_are_taken_apart():
    text = "forward: dW = a·b; m0 = a\nfeedback: dW = b"
    assert sides(text) == [("forward", "dW", "a·b"), ("forward", "m0", "a"), ("feedback", "dW", "b")]
    assert sides("dW = a") == [("", "dW", "a")]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.8239, "0.824"), (-0.5, "−0.500"), (12.345, "12.3"), (0.0, "0"), (0.00051, "0.0005"), (1.2e7, "1.20·10⁷"),
     (0.99999, "1.00"), (None, "–"), (float("nan"), "–"), (-3e-7, "−3.00·10⁻⁷")],
)  # fmt: skip
def test_numbers_have_three_digits_and_a_true_minus(value, text):
    assert number(value) == text


def test_text_is_escaped_and_markup_is_not_escaped_twice():
    inner = tag("b", "<&>")
    assert tag("p", inner, '"', class_='"', hidden=True, lang=None) == (
        '<p class="&quot;" hidden><b>&lt;&amp;&gt;</b>&quot;</p>'
    )
    assert isinstance(inner, Html)
    assert "</script><" not in embedded("a", "</script><script>")


@pytest.mark.parametrize("values", [[1.0], [0.0], [-3.0, 5.0], [None, float("nan")], [1e-9, 2e-9]])
@pytest.mark.parametrize("log", [False, True])
def test_an_axis_holds_its_values_and_ticks(values, log):
    axis = Axis(values, log)
    for value in (*(v for v in values if v is not None and v == v), *axis.ticks()):
        assert -1e-9 <= axis.at(value) <= 1 + 1e-9


def test_long_curves_are_medians_and_short_ones_are_as_they_were():
    assert thinned(range(3), [1.0, None, float("nan")]) == ([0, 1, 2], [1.0, None, None], [], [], 1)
    curve = thinned(range(1000), [float("nan") if k < 10 else k % 10 for k in range(1000)])
    assert (len(curve.x), curve.width) == (100, 10)
    assert curve.y[0] is None
    assert set(curve.y[1:]) == {4.5}
    assert (set(curve.low[1:]), set(curve.high[1:])) == ({2.25}, {6.75})


def test_divergence_is_cut_off_an_axis_and_nothing_else_is():
    assert ceiling([0.1, *[1.0] * 20, 1e16]) == 10.0
    assert ceiling([0.1, 1.0, 10.0, 100.0]) is None
    assert ceiling([None, 0.0]) is None


def test_shades_are_symmetric_about_nothing():
    assert [level_of(value, 2.0) for value in (-2.0, 0.0, 2.0, None)] == [-LEVELS, 0, LEVELS, None]
    assert level_of(0.0, 0.0) == 0
    assert level_of(9.0, 2.0) == LEVELS


def test_a_pole_of_a_surface_does_not_take_all_shades():
    made = document()["surfaces"]["surfaces"][0]
    made["change"][0][0] = 1e6
    shown = heat_map("a", made)
    assert shown.count("<path") > LEVELS
    assert "≥ +" in shown
    assert "≥" not in heat_map("a", document()["surfaces"]["surfaces"][0])


def test_a_search_is_written_as_toml_reads_it():
    tomllib = pytest.importorskip("tomllib")
    search = {"task": {"kind": "a", "ways": 5}, "rule": {"start": {}, "terms": ["a", "b"]}, "a b": {"c": {"d": 0.1}}}
    assert tomllib.loads(toml(search | {"left_out": None})) == {
        "task": search["task"], "rule": {"terms": ["a", "b"]}, "a b": search["a b"]
    }  # fmt: skip


def test_every_kind_of_change_has_its_own_caption():
    made = document()
    rows = made["stress"]["knockouts"]
    made["stress"]["knockouts"] = rows + [{**row, "kind": "sign flip"} for row in rows if row["kind"] == "knock-in"]
    text = page(made, episodes())
    changes = ("without one of its terms", "with the sign of one of its terms turned", "with one more term")
    counts = {text.count(f"the rule {change}") for change in changes}
    assert len(counts) == 1
    assert 0 not in counts


def test_the_nearest_rules_of_every_rule_are_named_with_it():
    made = document()
    made["nearest"] = [{**row, "rule": key} for key in ("forward", "feedback") for row in made["nearest"] * 9]
    text = page(made, episodes())
    for key in ("forward", "feedback"):
        assert 1 < text.count(f">{key}</") < 9


def test_a_condition_that_could_not_be_made_does_not_count_against_a_rule():
    made = document()
    entry = {"condition": "data", "group": "data", "sentence": "."}
    made["stress"]["verdicts"] = [{**entry, "holds": holds} for holds in (True, False, None, None)]
    assert "1 of 2" in (figures(made) or "")
    made["stress"]["verdicts"] = made["stress"]["verdicts"][2:]
    assert "holds up" not in (figures(made) or "")


def test_the_verdict_names_the_best_baseline_and_says_where_they_are_level():
    made = document()
    assert verdict(made).endswith("2.2 points better than tuned backprop.")
    made["differences"][0] |= {"low": -0.01}
    assert verdict(made).endswith("not told apart from tuned backprop.")
    made["differences"][0] |= {"mean": -0.022, "low": -0.03, "high": -0.01}
    assert verdict(made).endswith("2.2 points worse than tuned backprop.")
    for each in (*made["battery"], *made["differences"]):
        each["metric"] = "held_out_loss"
    made["differences"][1] |= {"mean": -0.5, "low": -0.6, "high": -0.4}
    assert verdict(made).endswith("0.022 better than tuned backprop.")
    assert verdict(made | {"finished": False, "generations": 3}) == "Not finished: 3 of 30 generations."


def test_a_run_of_a_model_is_shown_without_what_only_a_rule_has():
    bare = {"equations": [], "equation": None, "locality": None, "nearest": [], "identifiability": None}
    made = {key: value for key, value in document().items() if key not in ("probes", "stress", "surfaces", "distilled")}
    of_rule, of_model = page(made | bare, episodes()), page(made | bare | {"model": "cnn"}, episodes())
    for text in ('id="equation"', "--stress"):
        assert text in of_rule
        assert text not in of_model
    assert 'id="battery"' in of_model
