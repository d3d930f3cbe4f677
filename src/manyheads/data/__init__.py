"""Files to rows to records: readers for every format, records with labels, the data check."""
