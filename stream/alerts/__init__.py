"""The stage ``alerts`` and the dispatcher: evidence, alerts, signed webhooks and receipts."""
