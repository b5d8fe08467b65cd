"""Historic bugs, and the judges that must notice them; :mod:`~proofs_checks.mutations.bug` says how."""
