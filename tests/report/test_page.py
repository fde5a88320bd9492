"""The page as text: what it holds, what it escapes, what it does with runs that lack something."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from jettison.core.artifacts import LINEAGE_FILE, Lineage
from jettison.core.errors import InputError, RecipeError
from jettison.report.page import page_of


class Text(HTMLParser):
    """Tags and visible words of a page, as a parser of HTML finds them."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.words, self._hidden = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag in {"style", "script"}

    def handle_endtag(self, _tag):
        self._hidden = False

    def handle_data(self, data):
        if not self._hidden:
            self.words.append(data)

    @property
    def all(self):
        return " ".join(" ".join(self.words).split())


def written(folder, **document):
    folder.mkdir(exist_ok=True)
    (folder / "report.json").write_text(json.dumps(document))
    return folder


def test_nothing_in_a_page_leads_outside(run, experiment):
    page = Text(page_of(run, experiment=experiment))
    addresses = [value for _, attrs in page.tags for name, value in attrs.items() if name in {"src", "href"}]
    assert addresses
    assert all(address.startswith("#") for address in addresses)
    assert not re.search(r"url\((?!data:image/png;base64,)", page_of(run))


def test_no_attribute_holds_style_or_script(run):
    """The policy would block them, and the page would look broken without a word."""
    names = {name for _, attrs in Text(page_of(run)).tags for name in attrs}
    assert not {name for name in names if name == "style" or name.startswith("on")}


def test_the_policy_allows_this_style_and_this_script_alone(run):
    page = page_of(run)
    policy = next(
        attrs["content"]
        for _, attrs in Text(page).tags
        if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        text = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[-1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_figures_for_the_script_are_json_without_markup(run, report_run):
    page = page_of(run)
    text = re.search(r"<script type=\"application/json\" data-figures>(.*?)</script>", page).group(1)
    assert not set("<>&") & set(text)
    names = set(json.loads(text)["figures"])
    assert {"baseline", f"{report_run.HOSTILE} 0"} < names


def test_a_number_that_is_none_is_a_dash_and_never_nan(run):
    assert not re.search(r"\b(nan|NaN|inf|None)\b", Text(page_of(run)).all)


def test_a_run_of_an_older_version_has_a_page(tmp_path):
    """Only what the first version wrote: no targets, no explanation, no quantiles, no origin."""
    folder = written(
        tmp_path / "old",
        model="small",
        target="cpu",
        baseline={"path": "m.onnx", "size_bytes": 4000, "score": 0.9, "latency_ms": None},
        variants=[{"name": "int8", "path": None, "reasons": ["refused: no layer"], "score": None}],
        chosen="baseline",
    )
    page = Text(page_of(folder)).all
    assert "refused: no layer" in page
    assert "Fewer than two models have a score and a cost" in page
    assert "did not keep its command line" in page


def test_an_empty_document_has_a_page(tmp_path):
    assert "(no name)" in Text(page_of(written(tmp_path / "empty"))).all


def test_pictures_stand_once_and_only_where_they_are_png(run, report_run, tmp_path):
    folder = report_run.write_run(tmp_path / "run", layers=2)
    (folder / "pictures").mkdir()
    picture = (run / "pictures" / "0.png").read_bytes()
    (folder / "pictures" / "0.png").write_bytes(picture)
    (folder / "pictures" / "1.png").write_bytes(b"<svg onload=alert(1)>")
    (folder / "pictures" / "2.png").write_bytes(picture + b"\0" * 300_000)
    page = page_of(folder)
    assert page.count("data:image/png;base64,") == 1
    assert f".p0{{background-image:url(data:image/png;base64,{base64.b64encode(picture).decode()})}}" in page
    assert 'aria-label="sample 0"' in page
    assert 'aria-label="sample 1"' not in page


def test_of_many_layers_the_noisiest_are_listed_in_the_order_of_the_model(tmp_path):
    layers = [{"node": f"layer_{number}", "sqnr_db": float(abs(number - 500))} for number in range(1000)]
    variant = {"name": "int8", "explanation": {"layers": layers}}
    page = Text(page_of(written(tmp_path / "run", variants=[variant]))).all
    assert "The 300 noisiest of 1,000 layers are listed" in page
    listed = [int(number) for number in re.findall(r"layer_(\d+)", page)]
    assert listed == list(range(350, 650)) or listed == list(range(351, 651))


def test_lineage_is_told_wherever_the_run_was_moved_to(tmp_path):
    folder = written(
        tmp_path / "run",
        model="small",
        target="cpu",
        variants=[{"name": "int8", "sha256": "ab" * 32}, {"name": "../../outside"}],
        origin={"command": ["jettison", "run", "my recipe.yaml"], "at": "2026-11-24", "machine": "a CPU"},
    )
    lineage = Lineage(step="variant", settings="cpu; full", parents=("cd" * 32,), versions={"numpy": "2.4.0"})
    (folder / "cpu" / "int8").mkdir(parents=True)
    (folder / "cpu" / "int8" / LINEAGE_FILE).write_text(lineage.model_dump_json())
    page = Text(page_of(folder)).all
    assert "jettison run 'my recipe.yaml'" in page
    assert "pip install numpy==2.4.0" in page
    assert "ab" * 32 in page
    assert "cd" * 32 in page
    assert "cpu; full" in page


def test_a_name_that_leads_out_of_the_folder_reads_nothing_there(tmp_path):
    lineage = Lineage(step="secret-step", settings="", parents=(), versions={})
    (tmp_path / LINEAGE_FILE).write_text(lineage.model_dump_json())
    folder = written(
        tmp_path / "run", target="..", variants=[{"name": "."}, {"name": "../.."}, {"name": "a\0b"}]
    )
    assert "secret-step" not in page_of(folder)


def test_two_names_to_compare_open_the_page(run):
    page = Text(page_of(run, compare=("baseline", "{{ 7 * 7 }}{% raw %} 2")))
    side = next(attrs for _, attrs in page.tags if "data-compare" in attrs)
    assert (side["data-compare"], side["data-with"]) == ("baseline", "{{ 7 * 7 }}{% raw %} 2")


def test_a_name_that_is_not_in_the_run_is_refused(tmp_path):
    folder = written(tmp_path / "run", variants=[{"name": "int8"}])
    with pytest.raises(InputError) as refused:
        page_of(folder, compare=("int8", "int4"))
    assert str(refused.value) == (
        "--compare int8 int4: expected names of this run (baseline, int8), found 'int4'. "
        "Give two of these names"
    )


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(RecipeError) as refused:
        page_of(tmp_path)
    assert str(refused.value).startswith(
        f"run {tmp_path}: expected a finished run with report.json, found none. "
    )


@pytest.mark.parametrize("content", ["", "{", "[]", '{"variants": 3}', '{"baseline": {"score": "much"}}'])
def test_a_damaged_report_is_refused(tmp_path, content):
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(RecipeError, match=r"expected the JSON of a run, found .*Give the folder that"):
        page_of(tmp_path)


def test_what_live_traffic_said_has_its_part(run, experiment):
    page = Text(page_of(run, experiment=experiment))
    assert "1,000 units judged, 3 not known yet" in page.all
    assert any(attrs.get("class") == "line c1" for tag, attrs in page.tags if tag == "path")
    assert 'id="experiment"' not in page_of(run)


def layer(node, sqnr_db, weight="int8"):
    return {"node": node, "sqnr_db": sqnr_db, "weight": {"element_type": weight}}


def test_layers_of_two_variants_are_compared_other_formats_first(tmp_path):
    first = [layer("same", 30.0), layer("noisier", 30.0), layer("kept", 30.0)]
    second = [layer("same", 30.0), layer("noisier", 20.0), layer("kept", 31.0, "float32")]
    variants = [
        {"name": name, "explanation": {"layers": layers}} for name, layers in (("a", first), ("b", second))
    ]
    folder = written(tmp_path / "run", variants=variants)
    page = Text(page_of(folder, compare=("a", "b"))).all
    part = page.partition("Layers of a and b")[2].partition("What changed in")[0]
    assert re.findall(r"same|noisier|kept", part.partition("gain")[2].partition("2 of 3")[0]) == [
        "kept", "noisier", "same",
    ], "the word `same` stands for the formats of the second row"  # fmt: skip
    assert "\N{MINUS SIGN}10" in part
    assert "2 of 3 layers: other formats first" in part
    assert "Layers of" not in Text(page_of(folder)).all
    assert "Layers of" not in Text(page_of(folder, compare=("baseline", "b"))).all


def test_variants_without_a_difference_say_so(tmp_path):
    variants = [{"name": name, "explanation": {"layers": [layer("one", 30.0)]}} for name in "ab"]
    page = Text(page_of(written(tmp_path / "run", variants=variants), compare=("a", "b"))).all
    assert "No difference in 1 layer: the same formats" in page
