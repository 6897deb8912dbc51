"""From pixels to bytes: encoding, quality and size, and the budget that bounds them."""
