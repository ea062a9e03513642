"""One run of one video, from the equipment to the finished file."""
