"""Evaluation protocols by name: who is trained on, who is tested on, and how the answers are scored and told.

    for fold in folds("bu3dfe-subset1", index.records, seed=0, repeats=10):
        fold.split()                                  # {"train": ids, "validation": ids, "test": ids}
    outcomes = Outcomes.of(protocol("bu3dfe-subset1"), answers, truths)
    report = Report.of(...)                           # accuracy, UAR, F1, intervals, confusion, slices; .markdown()

Nothing here knows of files, scans or models: a record is anything with id, subject, label and intensity. What holds for
all protocols: people are divided, never scans; the validation people come out of the training people; the test people
take no part in any choice; each sample is scored once a run; the same records and seed give the same folds, in
whatever order files were found; and what a data set lacks is said, not passed over.
"""

from affectvlm.protocols.definitions import (
    BP4D_PLUS_TASKS,
    BP4D_TASKS,
    PROTOCOLS,
    Protocol,
    check_task,
    protocol,
    select,
    task_of,
)
from affectvlm.protocols.folding import Fold, Part, folds
from affectvlm.protocols.outcomes import Outcomes
from affectvlm.protocols.published import PUBLISHED, Published
from affectvlm.protocols.report import Report
from affectvlm.protocols.scores import bootstrap, counts_of, reliability, scores_of

__all__ = [
    "BP4D_PLUS_TASKS",
    "BP4D_TASKS",
    "PROTOCOLS",
    "PUBLISHED",
    "Fold",
    "Outcomes",
    "Part",
    "Protocol",
    "Published",
    "Report",
    "bootstrap",
    "check_task",
    "counts_of",
    "folds",
    "protocol",
    "reliability",
    "scores_of",
    "select",
    "task_of",
]
