"""Evaluations made of many trainings: the ablation of AffectVLM, and the cross-validation of a protocol.

    ablation("runs/ablation", seeds=(0, 1, 2))
    evaluate(Request("bu3dfe-subset1", "BU-3DFE", "runs/bu3dfe-subset1", repeats=10))

Each training is a process and a run folder of its own. What is finished is not done again, what was stopped is gone on
with: after a kill the same call, or the same command, does the rest.
"""

from affectvlm.evaluation.ablation import FULL, ROWS, TABLES, ablation, compare, markdown, plot
from affectvlm.evaluation.crossval import Request, evaluate

__all__ = ["FULL", "ROWS", "TABLES", "Request", "ablation", "compare", "evaluate", "markdown", "plot"]
