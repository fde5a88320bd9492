"""The whole road on real input: compress, prove, publish, serve, ask, compare. `make demo` runs it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from jettison.cli.console import progress_bars
from jettison.cli.run import write_report
from jettison.cli.surroundings import cache_folder, now, surroundings
from jettison.cli.tables import print_result
from jettison.core.samples import Samples, open_samples
from jettison.engines.onnxruntime import OnnxRuntimeRunner
from jettison.evaluate.metrics import resolve_metric
from jettison.evaluate.reference import reference_of
from jettison.evaluate.scoring import Scores, score
from jettison.pipeline.delivery import publish_results
from jettison.pipeline.results import RunResult
from jettison.pipeline.run import run
from jettison.recipe_text import load_recipe
from jettison.triton.client import TritonRunner
from jettison.triton.server import ServerOptions, TritonServer, find_server

HERE = Path(__file__).parent
BATCH = 8
console = Console(width=120)


def main() -> int:
    """Run the recipe, serve what it published, and print what the server answers."""
    recipe = load_recipe(HERE / "recipe.yaml")
    folder = HERE / "runs" / recipe.model.name
    with progress_bars() as reporter:
        result = run(recipe, surroundings(folder, reporter))
        write_report(result, folder)  # the evidence stands, whatever the repository says
        result = publish_results(result, recipe, created=now())
    write_report(result, folder)
    for target in result.targets:
        print_result(target)
        console.print()
    if recipe.publish is None:
        return 1
    installation = find_server(
        None, which=shutil.which, cache=cache_folder(), python=Path(sys.executable), progress=console.print
    )
    repository = recipe.publish.repository
    with TritonServer(repository, installation, environment=os.environ, options=ServerOptions()) as server:
        console.print(
            f"tritonserver serves {repository.relative_to(HERE)} on {server.http_url} and {server.grpc_url}"
        )
        return ask(
            server,
            result,
            open_samples(str(HERE / "evaluation.npz"), OnnxRuntimeRunner(HERE / "fashion.onnx").inputs),
        )


def ask(server: TritonServer, result: RunResult, samples: Samples) -> int:
    """Send every test image to each published model by both protocols; 0 where all equals local inference."""
    table = Table(title=f"served by tritonserver, {samples.count} test images", title_justify="left")
    for heading in ("model", "version", "protocol", "top1", "same decision as local", "largest difference"):
        table.add_column(heading)
    agreed = True
    for published in result.published:
        local = OnnxRuntimeRunner(published.path / "model.onnx")
        reference = reference_of(local, samples, batch_size=BATCH)
        for protocol, url in (("grpc", server.grpc_url), ("http", server.http_url)):
            with TritonRunner(url, published.model, version=published.version, protocol=protocol) as served:
                top1 = score(served, samples, metric=resolve_metric("top1"), batch_size=BATCH)
                same = score(
                    served, samples, metric=resolve_metric("agreement"), reference=reference, batch_size=BATCH
                )
                difference = largest_difference(served, local, samples)
            agreed = agreed and same.mean == 1.0
            table.add_row(published.model, str(published.version), protocol, *figures(top1, same, difference))
    console.print(table)
    return 0 if agreed else 1


def figures(top1: Scores, same: Scores, difference: float) -> tuple[str, str, str]:
    """The figures of one row."""
    return f"{top1.mean:.4f}", f"{same.mean:.2%}", f"{difference:.2g}"


def largest_difference(served: TritonRunner, local: OnnxRuntimeRunner, samples: Samples) -> float:
    """The largest difference of any logit over the first batch."""
    inputs = next(samples.batches(BATCH)).inputs
    return float(np.abs(served.run(inputs)["logits"] - local.run(inputs)["logits"]).max())


if __name__ == "__main__":
    sys.exit(main())
