"""A run of ``certify check`` in formats that other programs read, one module a format.

Each renders the data of :class:`reports.schema.Reports`; ``FORMATS`` in :mod:`certify.cli.registry` names it.
"""
