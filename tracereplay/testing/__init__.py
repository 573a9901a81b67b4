"""For authors of strategies: the conformance kit, and demand to try a strategy on."""

from tracereplay.testing.check import check_strategy
from tracereplay.testing.demand import Demand, Made
from tracereplay.testing.findings import RULES, Finding, Verdict

__all__ = ["RULES", "Demand", "Finding", "Made", "Verdict", "check_strategy"]
