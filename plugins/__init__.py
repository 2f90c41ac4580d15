"""The labels: what logitkit itself offers, through the same hook as third parties."""
