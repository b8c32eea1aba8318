"""Runs the simulator: ``python -m deploy.sellfern``."""

from deploy.sellfern.cli import main

if __name__ == "__main__":
    main()
