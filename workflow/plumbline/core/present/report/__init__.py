"""The report: findings, figures and tables of all studies on one page."""
