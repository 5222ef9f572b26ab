"""What the remediator would have done: recorded alerts through the real matching, guardrails, planner and engine."""
