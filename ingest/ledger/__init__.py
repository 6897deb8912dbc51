"""What became of every captured frame: interval algebra, states, balance, auditor."""
