"""The dispatcher: queues, signed webhooks, retries and receipts for each receiver of alerts."""
