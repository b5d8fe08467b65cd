"""Controls of theory §6 that need no training: the door to the modules that make and count them.

============================  ============================================================
point of theory §6            here
============================  ============================================================
3 null tickets                :func:`null_tickets` (:mod:`lottery.nulls`)
4 direction                   :func:`random_direction` (:mod:`lottery.direction`)
5 opportunity                 :func:`of_examples`, :func:`of_records` (:mod:`lottery.opportunity`)
6 unrelated text              :func:`read_unrelated`, :func:`passage_windows` (:mod:`lottery.unrelated`)
7 seeds                       :func:`compare`, :func:`study` (:mod:`lottery.overlap`)
============================  ============================================================

Point 1 (termination) is measured by the extraction rules of every evaluation, point 2 (template) by
evaluating under the paraphrased templates in ``lottery/prompts``.
"""

from __future__ import annotations

from lottery.direction import Direction, random_direction
from lottery.nulls import NullTicket, bos_ids, frequency_strata, newline_ids, null_tickets, nulls_of
from lottery.opportunity import Opportunity, of_examples, of_records
from lottery.overlap import Study, TicketOverlap, compare, study
from lottery.unrelated import (
    Passage,
    UnrelatedText,
    Window,
    choose_passages,
    passage_windows,
    read_unrelated,
)

__all__ = [
    "Direction",
    "NullTicket",
    "Opportunity",
    "Passage",
    "Study",
    "TicketOverlap",
    "UnrelatedText",
    "Window",
    "bos_ids",
    "choose_passages",
    "compare",
    "frequency_strata",
    "newline_ids",
    "null_tickets",
    "nulls_of",
    "of_examples",
    "of_records",
    "passage_windows",
    "random_direction",
    "read_unrelated",
    "study",
]
