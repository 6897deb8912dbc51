"""The compacted ``config`` topic: reading, following and writing its entries, signatures, and the changes that apply
a site."""
