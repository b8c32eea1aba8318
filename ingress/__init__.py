"""The ingress: takes Sellfern's deliveries in over HTTP and stores them durably."""

import runpy
from pathlib import Path

# By their places: nothing of `shared` can be imported before it is sure to be ours.
_shared = Path(__file__).parents[1] / "shared"
runpy.run_path(str(_shared / "first_process.py"))["end_on_sigterm"]("ingress")
runpy.run_path(str(_shared / "shadowing.py"))["refuse_shadows"]("ingress")
