"""`certify prove`: clauses, worker processes, the record."""
