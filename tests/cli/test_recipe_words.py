"""What a recipe can have wrong: told in plain words, and settings without effect are refused."""

from __future__ import annotations

import pytest

from jettison.core.errors import RecipeError
from jettison.recipe_passes import PASSES, STAGES
from jettison.recipe_text import load_recipe, parse_variant

SECTIONS = {
    "model": "{name: small, path: model.onnx}",
    "samples": "{calibration: calibration.npz}",
    "variants": "[{name: int8, passes: [{quantize: full}]}]",
    "gate": "{tolerance: 0.1}",
}


def refusal(tmp_path, **changed):
    """What is said of a recipe that is right but for the changed sections."""
    sections = SECTIONS | changed
    path = tmp_path / "recipe.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in sections.items()))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert caught.value.exit_code == 2
    return f"{caught.value.detail}. {caught.value.fix}"


def one_pass(text):
    return f"[{{name: a, passes: [{text}]}}]"


@pytest.mark.parametrize(
    ("section", "value", "words"),
    [
        ("gate", "{tolerance: much}", "gate.tolerance: expected a number, found 'much'"),
        ("gate", "{tolerance: [1]}", "gate.tolerance: expected a number, found [1]"),
        ("gate", "{tolerance: }", "gate.tolerance: expected a number, found nothing"),
        ("gate", "{tolerance: .inf}", "gate.tolerance: expected a finite number, found inf"),
        ("gate", "{tolerance: -0.1}", "gate.tolerance: expected 0 or more, found -0.1"),
        ("gate", "{tolerance: yes}", "gate: expected a number for tolerance, found true"),
        ("gate", "{confidence: 0.5}", "gate.confidence: expected a number above 0.5, found 0.5"),
        ("gate", "{confidence: 1}", "gate.confidence: expected a number below 1, found 1"),
        ("gate", "{min_speedup: 0}", "gate.min_speedup: expected a number above 0, found 0"),
        ("gate", "[]", "gate: expected a mapping of keys, found []"),
        ("gate", "", "gate: expected a mapping of keys, found nothing"),
        ("seed", "one", "seed: expected a whole number, found 'one'"),
        ("seed", "1.5", "seed: expected a whole number, found 1.5"),
        ("seed", "true", "seed: expected a whole number, found true"),
        ("threads", "-1", "threads: expected 0 or more, found -1"),
        ("metric", "5", "metric: expected text, found 5. Put it in quotes if it is meant as text"),
        ("metric", "[top1]", "metric: expected text, found ['top1']. Correct it"),
        ("model", "{name: 2026-01-01, path: m}", "model.name: expected text, found the date 2026-01-01"),
        ("model", "{name: 1st, path: m}", "model.name: expected a name, found '1st'. Begin with a letter"),
        ("model", "{name: a, path: [m]}", "model.path: expected a path, found ['m']"),
        ("model", "{name: a}", "model: expected exactly one of path, torch, exported, keras, found none"),
        ("model", "{name: a, path: m, keras: k}", "found path and keras. Keep the one that names the model"),
        (
            "model",
            "{name: a, torch: net.pt}",
            "model.torch: expected package.module:function, found 'net.pt'",
        ),
        ("model", "{name: a, path: m, state: s}", "model: state has no effect with path. Leave it out"),
        ("model", "{name: a, torch: 'm:f', dynamic: {x: {0: n}}}", "model.dynamic.x.0: expected 1 or more"),
        ("model", "{name: a, pth: m}", "unknown key 'model.pth'. Did you mean 'path'?"),
        (
            "variants",
            "[{name: a, passes: [], quanize: full}]",
            "unknown key 'variants.0.quanize'. Known are name, passes",
        ),
        ("samples", "calibration.npz", "samples: expected a mapping of keys, found 'calibration.npz'"),
        ("samples", "{calibration: [a.npz]}", "samples.calibration: expected text, found ['a.npz']"),
        ("variants", "{int8: full}", "variants: expected a list, found {'int8': 'full'}"),
        ("variants", "[int8]", "variants.0: expected a mapping of keys, found 'int8'"),
        ("variants", "[{name: a, passes: []}]", "variants.0.passes: expected 1 or more in the list, found 0"),
        ("variants", "[{name: a, passes: {quantize: full}}]", "variants.0.passes: expected a list, found {"),
        ("targets", "cpu", "targets: expected a list such as [cpu, sm89], found 'cpu'"),
        ("publish", "models", "publish: expected a mapping of keys, found 'models'"),
        ("publish", "{repository: 5}", "publish.repository: expected a path, found 5"),
        (
            "publish",
            "{repository: m, keep_versions: 0}",
            "publish.keep_versions: expected 1 or more, found 0",
        ),
        ("publish", "{repository: m, keep_versions: on}", "expected a whole number, found true"),
        ("tolerance", "0.1", "unknown key 'tolerance'. It belongs in gate or a pass"),
        ("ranges", "mse", "unknown key 'ranges'. It belongs in a pass"),
        ("quality", "1", "unknown key 'quality'. Known are explain, gate, metric"),
        ("7", "1", "expected text as a key, found 7. Put it in quotes"),
    ],
)
def test_wrong_value_is_told_plainly(tmp_path, section, value, words):
    assert words in refusal(tmp_path, **{section: value})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("full", "variants.0.passes.0: a pass is a mapping such as {quantize: full}, found 'full'"),
        ("{quantize: ful}", "passes.0: there is no pass {quantize: ful}. Did you mean {quantize: full}?"),
        ("{quantize: int8}", "there is no pass {quantize: int8}. Did you mean {quantize: full}?"),
        ("{shrink: half}", "there is no pass {shrink: half}. Passes are {quantize: full}"),
        ("{prune: half}", "there is no pass {prune: half}"),
        ("{prune: two-to-for}", "there is no pass {prune: two-to-for}. Did you mean {prune: two-to-four}?"),
        ("{prune: {threshold: fixt}}", "Did you mean {prune: {threshold: fixed}}?"),
        (
            "{prune: {treshold: fixed}}",
            "prune: expected a kind, or a mapping with threshold, sparsity or channels, found",
        ),
        ("{prune: {treshold: fixed}}", "Did you mean 'threshold'?"),
        ("{prune: {}}", "or a mapping with threshold, sparsity or channels, found {}. Correct it"),
        ("{quantize: {full: 1}}", "quantize: expected a kind, found {'full': 1}. Correct it"),
        ("{prune: {threshold: fixed}}", "the key 'variants.0.passes.0.value' is missing. Add it"),
        (
            "{prune: {threshold: fixed, valeu: 1}}",
            "{prune: {threshold: fixed}} has no key 'valeu'. Did you mean 'value'?",
        ),
        (
            "{prune: {sparsity: 0.5, scop: global}}",
            "{prune: {sparsity: ...}} has no key 'scop'. Did you mean 'scope'?",
        ),
        ("{prune: {sparsity: 0.5, scope: layer}, scope: global}", "prune: found scope twice. Write it once"),
        ("{prune: {sparsity: 1.5}}", "passes.0.sparsity: expected a number below 1, found 1.5"),
        ("{prune: {sparsity: yes}}", "expected a number for sparsity, found true"),
        ("{prune: {sparsity: 0.5, criterion: taylo}}", "criterion: expected one of magnitude"),
        ("{prune: {channels: 1.5}}", "passes.0.channels: expected a number below 1, found 1.5"),
        ("{prune: {channels: yes}}", "expected a number for channels, found true"),
        (
            "{prune: channels}",
            "expected channels: a share such as 0.3, or channels: {macs: 0.5}, found neither",
        ),
        ("{prune: {channels: {mac: 0.5}}}", "or channels: {macs: 0.5}, found keys ['mac']. Correct it"),
        ("{prune: {channels: {macs: 2}}}", "passes.0.macs: expected a number below 1, found 2"),
        ("{prune: {channels: 0.5, round_to: 12}}", "round_to: expected one of 8, 16, 32, found 12"),
        ("{prune: {channels: 0.5, macs: 0.5}}", "channels: {macs: 0.5}, found both. Write one of them"),
        ("{prune: two-to-four, method: gpt}", "method: expected one of sparsegpt, magnitude, found 'gpt'"),
        ("{prune: two-to-four, permute: often}", "permute: expected true or false, found 'often'"),
        ("{prune: two-to-four, keep_float: [a]}", "{prune: two-to-four} has no key 'keep_float'"),
        ("{quantize: full, rangs: mse}", "{quantize: full} has no key 'rangs'. Did you mean 'ranges'?"),
        ("{quantize: float16, ranges: mse}", "{quantize: float16} has no key 'ranges'. Known are keep_float"),
        ("{quantize: full, 1: 2}", "{quantize: full} has no key 1"),
        (
            "{quantize: full, ranges: ms}",
            "ranges: expected one of max, percentile, mse, kl, measure, found 'ms'. Did you mean 'mse'?",
        ),
        (
            "{quantize: partial, ranges: measur}",
            "expected one of max, percentile, mse, kl, measure, found 'measur'. Did you mean 'measure'?",
        ),
        ("{quantize: full, ranges: 7}", "found 7. Choose one of them"),
        (
            "{quantize: full, ranges: percentile, percentile: 101}",
            "percentile: expected 100 or less, found 101",
        ),
        ("{quantize: full, keep_float: conv}", "passes.0.keep_float: expected a list, found 'conv'"),
        ("{quantize: full, keep_float: [1]}", "passes.0.keep_float.0: expected text, found 1"),
        ("{quantize: partial, max_evaluations: many}", "expected a whole number, found 'many'"),
        ("{quantize: partial, max_evaluations: 1000}", "max_evaluations: expected 200 or less, found 1000"),
        ("{quantize: partial, max_evaluations: 2.5}", "max_evaluations: expected a whole number, found 2.5"),
        ("{quantize: partial, tolerance: yes}", "expected a number for tolerance, found true"),
        ("{quantize: float16, least_sqnr_db: 0}", "least_sqnr_db: expected a number above 0, found 0"),
    ],
)
def test_wrong_pass_is_told_plainly(tmp_path, text, words):
    assert words in refusal(tmp_path, variants=one_pass(text))


@pytest.mark.parametrize("value", ["text", "-1.5", "{a: b}", "[[1]]", "2026-01-01", ".nan", ""])
@pytest.mark.parametrize(
    ("kind", "key"),
    sorted((kind, key) for kind, known in PASSES.items() for key in known.model_fields if key != kind[0]),
)
def test_no_message_on_a_pass_is_pydantics_own(kind, key, value):
    """Every key of every pass, with values of which it takes hardly one."""
    said = ""
    try:
        parse_variant(f"a=[{{{kind[0]}: {kind[1]}, {key}: {value}}}]")
    except RecipeError as error:
        said = str(error)
    assert "nput should" not in said
    assert "Value error" not in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "{quantize: full, percentile: 99.9}",
            "percentile has no effect with ranges: max. Leave it out, or write ranges: percentile",
        ),
        ("{quantize: full, ranges: mse, percentile: 99.99}", "percentile has no effect with ranges: mse"),
    ],
)
def test_percentile_that_no_range_method_reads_is_refused(tmp_path, text, words):
    assert words in refusal(tmp_path, variants=one_pass(text))


def test_percentile_with_its_method_is_taken():
    found = parse_variant("a=[{quantize: full, ranges: percentile, percentile: 99.9}]")
    assert found.passes[0].percentile == 99.9


@pytest.mark.parametrize("targets", ["[cpu, cpu]", "[sm89, sm_89]"])
def test_target_that_stands_twice_is_refused(tmp_path, targets):
    name = targets.strip("[]").split(",", maxsplit=1)[0]
    assert f"targets: found {name} twice. Name each target once" in refusal(tmp_path, targets=targets)


def test_variant_name_that_stands_twice_is_refused(tmp_path):
    twice = "[{name: a, passes: [{quantize: full}]}, {name: a, passes: [{quantize: dynamic}]}]"
    assert "variants: found the name a twice. Give each variant a name of its own" in refusal(
        tmp_path, variants=twice
    )


def test_key_that_stands_twice_is_refused_with_both_lines(tmp_path):
    (tmp_path / "recipe.yaml").write_text("metric: top1\nseed: 1\nmetric: sqnr\n")
    with pytest.raises(RecipeError, match="the key 'metric' stands twice, in lines 1 and 3"):
        load_recipe(tmp_path / "recipe.yaml")


def test_key_that_stands_twice_in_a_pass_of_the_command_line_is_refused():
    with pytest.raises(RecipeError, match="the key 'ranges' stands twice"):
        parse_variant("a=[{quantize: full, ranges: mse, ranges: max}]")


def test_file_of_bytes_that_are_no_text_is_no_yaml(tmp_path):
    (tmp_path / "recipe.yaml").write_bytes(b"\xff\x00\x81 model")
    with pytest.raises(RecipeError, match="not YAML"):
        load_recipe(tmp_path / "recipe.yaml")


def test_a_sample_path_with_a_colon_is_taken_from_the_folder_of_the_recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "model: {name: m, path: m.onnx}\n"
        "samples: {calibration: 'data:1/cal', evaluation: 'own.module:function'}"
    )
    samples = load_recipe(path).samples
    assert samples.calibration == str(tmp_path / "data:1/cal")
    assert samples.evaluation == "own.module:function"


@pytest.mark.parametrize(
    ("text", "flat"),
    [
        ("{prune: {threshold: fixed, value: 0.1}}", {"prune": "fixed", "value": 0.1}),
        (
            "{prune: {threshold: fixed, value: 0.1}, keep_dense: [a]}",
            {"prune": "fixed", "keep_dense": ("a",)},
        ),
        ("{prune: {threshold: dynamic, deviations: 2}}", {"prune": "dynamic", "deviations": 2}),
        ("{prune: {channels: 0.3, round_to: 16}}", {"prune": "channels", "channels": 0.3, "round_to": 16}),
        ("{prune: {channels: {macs: 0.5}}}", {"prune": "channels", "channels": None, "macs": 0.5}),
        ("{prune: channels, macs: 0.5}", {"prune": "channels", "macs": 0.5}),
        (
            "{prune: {sparsity: 0.5, scope: global}}",
            {"prune": "sparsity", "scope": "global", "sparsity": 0.5},
        ),
        ("{prune: two-to-four, permute: true}", {"prune": "two-to-four", "permute": True}),
        ("{prune: sparsity, sparsity: 0.5}", {"prune": "sparsity", "sparsity": 0.5}),
    ],
)
def test_a_pass_may_have_its_keys_below_its_verb(text, flat):
    (found,) = parse_variant(f"a=[{text}]").passes
    assert flat.items() <= found.model_dump().items()


TWO, FULL, HALF = "{prune: two-to-four}", "{quantize: full}", "{quantize: float16}"
SPARSE = "{prune: {sparsity: 0.5}}"


@pytest.mark.parametrize(
    ("passes", "words"),
    [
        ((FULL, TWO), f"expected {TWO} before {FULL}, found it behind. Write [{TWO}, {FULL}]"),
        ((FULL, SPARSE), "expected {prune: {sparsity: ...}} before {quantize: full}, found it behind"),
        (
            (HALF, FULL),
            f"expected {FULL} before {HALF}, found it behind. Write [{FULL}, {HALF}]: smaller graphs",
        ),
        ((HALF, SPARSE, FULL), "Write [{prune: {sparsity: ...}}, {quantize: full}, {quantize: float16}]"),
    ],
)
def test_passes_in_an_order_that_undoes_work_are_refused_with_the_right_one(tmp_path, passes, words):
    assert words in refusal(tmp_path, variants=one_pass(", ".join(passes)))


@pytest.mark.parametrize(
    "passes", [(TWO, FULL), (SPARSE, TWO), (TWO, SPARSE, FULL, HALF), (FULL, HALF), (TWO, TWO), (FULL, FULL)]
)
def test_passes_in_a_fitting_order_are_taken(passes):
    assert len(parse_variant(f"a=[{', '.join(passes)}]").passes) == len(passes)


def test_every_pass_has_a_stage():
    assert all(key in STAGES or (key[0], "") in STAGES for key in PASSES)
