"""The ledger of captured frames and readings: intervals of sequence numbers, final states, and the audit of both."""
