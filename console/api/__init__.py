"""HTTP API, for programs: the data of the pages as JSON, and a stream of new events, alerts and receipts."""
