"""How the two programs are run: on this machine, in containers, under systemd."""
