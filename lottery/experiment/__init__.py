"""Experiments: run a plan from a base model to tickets and evidence, in cached steps.

============  ===============================================================================================
``plan``      the plan file; the tickets, arms and costs that follow from it
``engine``    steps, their keys, cache and journal, for any graph; where a step finds base and texts
``steps``     what each kind of step does
``layout``    the graph of steps that follows from a plan
``driver``    run, dry run and status of a whole experiment
============  ===============================================================================================
"""
