"""Plots of the page: from what is known of a ticket to a figure, or to one sentence why there is none."""
