"""What must not be seen: masked, or made unrecognisable, before anything is encoded, stored or sent."""
