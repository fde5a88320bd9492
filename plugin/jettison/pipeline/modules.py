"""The way of passes to torch modules: `sources` opens and exports what a recipe names."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import onnx_ir as ir

from jettison.core.samples import Samples
from jettison.core.tensors import TensorSpec
from jettison.graph.model import open_model
from jettison.pipeline.steps import MODEL_FILE
from jettison.sources.examples import examples_among
from jettison.sources.export import export_source
from jettison.sources.source import Source
from jettison.sources.subject import Subject
from jettison.sources.torch_module import module_subject, open_module


class SourceModules:
    """Opens modules in this process, where they are trained, and exports them by a process of its own."""

    def open(self, factory: str, state: Path | None, *, inputs: Collection[str], role: str) -> Subject:
        """A copy of the module that the function gives: a function may give the same one each time.

        Raises:
            ModelError: No such function; it gives no module; the state dict does not fit.
            SamplesError: Its forward takes other arguments.
        """
        subject = module_subject(open_module(factory, state, role=role), f"{role} {factory}", inputs)
        return dataclasses.replace(subject, module=copy.deepcopy(subject.module))

    def export(
        self,
        factory: str,
        state: Path,
        *,
        samples: Samples,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[str],
    ) -> ir.Model:
        """The module as ONNX; axes that are open in the inputs stay open.

        Raises:
            ModelError: It cannot be exported, or its ONNX form answers otherwise.
            ExternalError: The process that exports it died.
        """
        dynamic = {
            spec.name: {
                axis: size or f"{spec.name}_dim{axis}"
                for axis, size in enumerate(spec.shape)
                if axis and not isinstance(size, int)
            }
            for spec in inputs
        }
        source = Source(
            torch=factory,
            state=state,
            dynamic={name: axes for name, axes in dynamic.items() if axes},
            outputs=tuple(outputs),
        )
        with tempfile.TemporaryDirectory(prefix="jettison-export-") as folder:
            path = Path(folder) / MODEL_FILE
            export_source(source, examples_among(samples), path)
            return open_model(path)
