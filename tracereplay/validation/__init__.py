"""Published figures beside what the simulator gives, each with a verdict that a rule decides (docs/validation.md)."""
