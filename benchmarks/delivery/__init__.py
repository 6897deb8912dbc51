"""Deliveries to faulty receivers, through kills of the dispatcher, and beside a dead receiver."""
