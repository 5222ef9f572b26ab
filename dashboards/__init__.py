"""The Grafana dashboards: builders in Python, from which the JSON in grafana/dashboards/ is made.

`python -m dashboards` makes it anew, `--check` compares. Nothing that runs imports this package: it is needed to make
files, and to show them without Grafana (`python -m dashboards.preview`).
"""
