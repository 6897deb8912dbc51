"""The ledger of captured frames and readings: interval algebra, final states, balance, auditor."""
