"""Results as summaries, statistics, tables, plots and pages."""
