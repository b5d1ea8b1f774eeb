"""Report of an evaluation: one HTML file that opens from the disk, with tables, plots and the worst samples."""

from .page import compose_report, show_interval, show_score

__all__ = ["compose_report", "show_interval", "show_score"]
