"""What others see of a running program: log lines, metrics, spans, probes."""
