"""The ledger of each camera and hour, and the explanation of a frame; child processes compute both."""
