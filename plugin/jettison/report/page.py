"""The page: one HTML file with all that it needs, which asks nobody for anything.

Values go through Jinja's autoescape; JSON stands in a script tag by Jinja's `tojson`, which leaves no `<`.
Style and script are allowed by their digests alone: markup that slipped through could neither run nor load.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from jettison._version import __version__
from jettison.core.errors import InputError
from jettison.report import course, front, strips, words
from jettison.report.comparison import Comparison, comparison_of
from jettison.report.course import Course, CourseChart, chart_of
from jettison.report.front import Front, fronts_of, kind_of
from jettison.report.layer_pairs import LayerPairs, layer_pairs
from jettison.report.layers import Layers, layers_of, room_for
from jettison.report.looks import Shown, changes_of, looks_of, pictures_in, samples_in
from jettison.report.reproduction import reproduction_of
from jettison.report.run_file import Run, Target, Variant, read_run
from jettison.report.strips import Strips, latencies_of

PAGE_FILE = "report.html"
_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class VariantView:
    """One variant as it is told in detail."""

    variant: Variant
    layers: Layers | None
    changes: tuple[Shown, ...]
    looks: tuple[Shown, ...]


@dataclass(frozen=True)
class TargetView:
    """One target: its charts, its table, and its variants in detail."""

    target: Target
    fronts: tuple[Front, ...]
    strips: Strips | None
    comparison: Comparison
    pairs: LayerPairs | None
    details: tuple[VariantView, ...]

    def kind(self, variant: Variant) -> str:
        """What the gate said of a variant."""
        return kind_of(variant, self.target)


def page_of(folder: Path, *, compare: tuple[str, str] | None = None, experiment: Course | None = None) -> str:
    """The report of the run in that folder as HTML.

    Args:
        folder: A finished run.
        compare: Two variants, or `baseline`, with which the page opens side by side.
        experiment: What live traffic said.

    Raises:
        RecipeError: The folder holds no report, or a damaged one.
        InputError: A name to compare is not in the run.
    """
    run = read_run(folder)
    if compare is not None:
        _check_names(run, compare)
    pictures = pictures_in(folder, samples_in(run))
    style, script = _style(pictures), _text("report.js")
    views = _views(run, pictures, compare)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            run=run,
            views=views,
            style=Markup(style),  # noqa: S704 - ours, and base64
            script=Markup(script),  # noqa: S704 - ours
            policy=_policy(style, script),
            reproduction=reproduction_of(run, folder),
            experiment=experiment,
            chart=None if experiment is None else chart_of(experiment),
            has_pictures=bool(pictures),
            version=__version__,
        )
    )


def _check_names(run: Run, compare: tuple[str, str]) -> None:
    known = list(dict.fromkeys(one.name for target in run.all_targets for one in target.everyone))
    for name in compare:
        if name not in known:
            raise InputError(
                f"--compare {' '.join(compare)}",
                detail=f"expected names of this run ({', '.join(known)}), found {name!r}",
                fix="Give two of these names",
            )


def _views(run: Run, pictures: Mapping[int, str], compare: tuple[str, str] | None) -> list[TargetView]:
    told = [
        v for target in run.all_targets for v in target.variants if v.explanation and v.explanation.layers
    ]
    room = room_for(len(told))
    return [
        TargetView(
            target,
            fronts_of(target),
            latencies_of(target),
            comparison_of(target, compare),
            None if compare is None else layer_pairs(target, *compare),
            tuple(_detail(variant, pictures, room) for variant in target.variants if variant.explanation),
        )
        for target in run.all_targets
    ]


def _detail(variant: Variant, pictures: Mapping[int, str], room: int) -> VariantView:
    told = variant.explanation
    if told is None:
        return VariantView(variant, None, (), ())
    layers = layers_of(told.layers, most=room) if told.layers else None
    return VariantView(variant, layers, changes_of(told, pictures), looks_of(told.saliency, pictures))


def _style(pictures: Mapping[int, str]) -> str:
    """The style sheet, with each picture once, however often it is shown."""
    rules = (
        f".p{sample}{{background-image:url(data:image/png;base64,{content})}}"
        for sample, content in pictures.items()
    )
    return "\n".join([_text("report.css"), *rules])


def _text(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """What the page may do: its own style, its own script, pictures within it; nothing else, to nobody."""
    sources = (f"'sha256-{_digest(text)}'" for text in (style, script))
    style_source, script_source = sources
    return (
        f"default-src 'none'; style-src {style_source}; script-src {script_source}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("number", "figures", "signed", "percent", "size", "times", "counted", "datum"):
        found.filters[name] = getattr(words, name)
    found.globals.update(front=front, strips_=strips, course_=course, ratio=words.ratio)
    return found


__all__ = ["PAGE_FILE", "CourseChart", "page_of"]
