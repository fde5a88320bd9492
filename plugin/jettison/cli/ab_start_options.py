"""The options of `jettison ab start` that need more than a line."""

from __future__ import annotations

import typer

BASELINE = typer.Option(
    ..., "--baseline", help="The model that serves today: NAME, or NAME@VERSION for an older one."
)
MARGIN = typer.Option(None, "--margin", help="How much worse it may be: 0.01 is one unit of a hundred.")
PLANNED_DISAGREEMENT = typer.Option(
    None, "--planned-disagreement", help="The share of units on which the two are expected to differ."
)
UNIT = typer.Option(
    None, "--unit", help="What is independent of the next one: clip, study, patient, device-hour."
)
INDEPENDENT = typer.Option(
    False, "--requests-are-independent", help="Say with --unit request that no two come from one of them."
)
MODE = typer.Option("shadow", "--mode", help="shadow: both are asked. split: one of the two answers.")
TASK = typer.Option(
    None, "--task", help="What agreement means: classification, embedding, detection, tolerance."
)
RAMP = typer.Option(
    "", "--ramp", help="Of mode split: the candidate's shares, such as 0.01,0.1,0.5; one is enough."
)
RAMP_UNITS = typer.Option(
    1000, "--ramp-units", min=1, help="So many units at one share, and `ab wait` takes the next."
)
ALPHA = typer.Option(None, "--alpha", help="How often a bad one may pass, 0.05 by default.")
LATENCY_QUANTILE = typer.Option(0.99, "--latency-quantile", help="The share of answers that must be in time.")
DATA_SOURCE = typer.Option(None, "--data-source", help="Where units come from; MODE:ROUTER by default.")
ROUTER = typer.Option(None, "--router", help="The model that clients call; the experiment's name by default.")
ROUTER_OPTION = typer.Option(
    [], "--router-option", help="KEY=VALUE of the router, such as sample_share=0.5; may come again."
)
NODE = typer.Option(
    None, "--node", help="This machine's name in the counters; '$NAME' takes it where the router runs."
)
KEY = typer.Option(None, "--key", help="The file of the key by which all counters shall be signed.")
URL = typer.Option(
    None, "--url", help="HOST:PORT of a running server's HTTP service, in explicit mode: load it there."
)
