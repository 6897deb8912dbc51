"""The edge agent: captures frames next to the cameras, selects frames with motion, redacts pictures, and sends frames
from a disk spool."""
