"""The report as one page of HTML, :func:`reports.html.page.page`: no request, no plotting library."""
