"""Files to rows to records, and the data check."""
