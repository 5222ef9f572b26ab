"""The exporter: targets in, golden-signal and business metrics out at /metrics. Reads only, never acts."""
