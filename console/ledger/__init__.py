"""The ledger of each camera and hour, and the explanation of a frame, both computed in processes of their own."""
