"""The guarantee, measured: accuracy within a tolerance and an answer every time, beside other quantizers.

    python benchmarks/guarantee.py [--json] [--parts front,road,tensorrt,encoder,example]

Each part runs in one process with its peers; all speeds of a part are taken in one run, interleaved.
Exit code 1 where a target is missed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from guarantee_checks import Part
from guarantee_front import front
from guarantee_models import encoder, example, for_tensorrt
from guarantee_road import road
from prepared import efficientnet, minilm, parser_of

FASHION = Path(__file__).parent.parent / "examples" / "fashion"
PARTS: dict[str, Callable[[Path], Part]] = {
    "front": lambda cache: front(efficientnet(cache)),
    "road": lambda cache: road(efficientnet(cache)),
    "tensorrt": lambda cache: for_tensorrt(efficientnet(cache)),
    "encoder": lambda cache: encoder(minilm(cache)),
    "example": lambda _: example(FASHION),
}


def main() -> int:
    """Measure the parts, print them; 1 where a target is missed."""
    parser = parser_of(__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help="which parts, separated by commas")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.parts.split(",")) - set(PARTS))
    if unknown:
        parser.error(f"there is no part {', '.join(unknown)}; parts are {', '.join(PARTS)}")
    found = {name: PARTS[name](arguments.cache) for name in arguments.parts.split(",")}
    if arguments.json:
        print(json.dumps({name: part.document() for name, part in found.items()}, indent=1))
    else:
        print("\n".join(part.markdown() for part in found.values()))
    return 0 if all(check.held for part in found.values() for check in part.checks) else 1


if __name__ == "__main__":
    sys.exit(main())
