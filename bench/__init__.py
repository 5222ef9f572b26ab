"""What is measured beside the peers, and how. Figures come from one run, as ratios; see bench/README.md."""
