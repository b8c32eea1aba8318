"""The ingress: takes Sellfern's deliveries in over HTTP and stores them durably."""

import runpy
from pathlib import Path

# By its place: nothing of `shared` can be imported before it is sure to be ours.
runpy.run_path(str(Path(__file__).parents[1] / "shared" / "shadowing.py"))["refuse_shadows"](
    "ingress"
)
