"""From events to signed webhooks: evidence, alert, dispatch, receipt."""
