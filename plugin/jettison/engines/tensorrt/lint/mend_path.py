"""Mends where pairs stand: takes away those that cost, and lets branches share a scale. All in place."""

from __future__ import annotations

import numpy as np

from jettison.engines.tensorrt.lint.finding import Subject
from jettison.engines.tensorrt.lint.mend_numbers import remove_pair, set_scale
from jettison.engines.tensorrt.lint.pairs import detach
from jettison.engines.tensorrt.lint.path import branches, final, needless, twins, uneven, unfused
from jettison.graph.batchnorm import fold_batchnorm
from jettison.graph.qdq import Editor


def merge_twins(subject: Subject) -> None:
    """The readers of a repeated pair read the first of its kind."""
    for pair, first in twins(subject.graph):
        if not (pair.is_plain and first.is_plain and first.dequantizes):
            continue
        target = first.dequantizes[0].output
        for half in pair.dequantizes:
            if not half.output.is_graph_output():
                half.output.replace_all_uses_with(target)
                detach(half.node)
        if not pair.quantize.output.uses():
            detach(pair.quantize.node)
    subject.graph.sort()


def move_shortcuts(subject: Subject) -> None:
    """The layer's own branch goes into the sum without a pair."""
    for pair, _ in branches(subject.graph):
        if pair.is_plain:
            remove_pair(pair)


def join_activations(subject: Subject) -> None:
    """The pair between a layer and its activation goes."""
    for pair, _ in unfused(subject.graph):
        if pair.is_plain:
            remove_pair(pair)


def leave_float(subject: Subject) -> None:
    """Pairs that only float operators read go."""
    for pair in needless(subject.graph):
        if pair.is_plain:
            remove_pair(pair)


def share_scales(subject: Subject) -> None:
    """All branches of a Concat get the largest of their scales; again where branches are shared."""
    for _ in range(len(uneven(subject.graph))):
        found = uneven(subject.graph)
        if not found:
            return
        editor = Editor(subject.model)
        for _, own in found:
            largest = np.max([np.asarray(pair.quantize.scale).reshape(()) for pair in own])
            for pair in own:
                set_scale(editor, pair, np.asarray(largest))
        editor.drop_unused()


def bare_outputs(subject: Subject) -> None:
    """The model gives the float values themselves."""
    for pair in final(subject.graph):
        remove_pair(pair)


def fold_norms(subject: Subject) -> None:
    """BatchNormalization is folded into the float weights before it."""
    fold_batchnorm(subject.model)
