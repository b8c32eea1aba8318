"""Runs the simulator: ``python -m shared.sellfern.simulator``."""

from shared.sellfern.simulator.cli import main

if __name__ == "__main__":
    main()
