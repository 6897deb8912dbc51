"""The ledger of captured frames and readings: intervals of sequence numbers, final states, balance, and audit."""
